// The tables of one adapter: its facts, what training measured, its versions.

import { number, percent, sayingChip, shortDigest, sizeOf } from "./adapters-words.js";
import { copyButton } from "./copy.js";
import { button, h } from "./dom.js";
import { formatNumber, formatTime, label, say } from "./i18n.js";

export function factsOf(record) {
  const { digest, size, num_virtual_tokens: rows, hidden_size: width, base, created, usage, running, verification, canary } = record;
  const used = say(h("span"), "adapters.used", {
    requests: formatNumber(usage.requests),
    prompts: formatNumber(usage.prompt_tokens),
    answers: formatNumber(usage.completion_tokens),
  });
  return facts([
    ["adapters.fact.digest", h("span", { class: "row" }, h("code", { title: digest }, digest.slice(0, 16), "…"), copyButton(() => digest))],
    ["adapters.fact.size", sizeOf(size)],
    ["adapters.fact.rows", rows > 0 ? `${formatNumber(rows)}${width ? ` × ${formatNumber(width)}` : ""}` : null],
    ["adapters.fact.base", base],
    ["adapters.fact.created", formatTime(created)],
    ["adapters.fact.use", used],
    ["adapters.fact.running", formatNumber(running)],
    ["adapters.fact.canary", canary && `${canary.percent} % → ${shortDigest(canary.digest)}`],
    ["adapters.fact.verification", verifiedBy(verification)],
  ]);
}

function verifiedBy({ num_probes: probes, num_replayed: replayed, num_equal: equal, detail, engine, checked }) {
  if (detail || checked === null) return detail || null;
  return say(h("span"), "adapters.replayed", { equal, replayed, probes, engine, time: formatTime(checked) });
}

/** What training measured; nothing for an adapter that was made elsewhere. */
export function trainingOf(training) {
  if (!training) return "";
  const { evaluation, scores = evaluation?.scores ?? [] } = training;
  const measured = scores.map(({ name, before, after }) => [name.replaceAll("_", " "), `${number(before)} → ${number(after)}`]);
  return h(
    "section",
    {},
    say(h("h3"), "adapters.training"),
    facts([
      ["adapters.fact.data", `${training.data} · ${formatNumber(training.rows)}`],
      ["adapters.fact.steps", formatNumber(training.steps)],
      ["adapters.fact.loss", training.final_loss === null ? null : number(training.final_loss)],
      ["adapters.fact.evalLoss", evaluation && `${number(evaluation.loss_before)} → ${number(evaluation.loss_after)}`],
      ["adapters.fact.match", evaluation && `${percent(evaluation.exact_match_before)} → ${percent(evaluation.exact_match_after)}`],
      ["adapters.fact.speed", formatNumber(training.tokens_per_second)],
    ]),
    measured.length > 0 && h("dl", { class: "facts" }, ...measured.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
  );
}

/** All versions, the newest first; `rollBack(digest)` and `chat(model)` are what their buttons do. */
export function versionsOf(record, { rollBack, chat }) {
  const rows = [...record.versions].reverse().map(({ digest, created, running, source }) => {
    const isCurrent = digest === record.digest;
    const model = `${record.id}@${shortDigest(digest)}`;
    const talk = label(button({ class: "quiet small", on: { click: () => chat(model) } }), "adapters.chatWith", { name: model });
    const back = label(button({ class: "small", on: { click: () => rollBack(digest) } }), "adapters.rollBackTo", { digest: shortDigest(digest) });
    return h(
      "tr",
      {},
      h("td", {}, h("code", {}, shortDigest(digest)), source && h("div", { class: "muted small source" }, source)),
      h("td", {}, formatTime(created), running > 0 && sayingChip("adapters.running", "accent", { count: formatNumber(running) })),
      h("td", { class: "col-actions" }, say(talk, "adapters.chat"), isCurrent ? sayingChip("adapters.current", "good") : say(back, "adapters.rollBack")),
    );
  });
  return h("section", {}, say(h("h3"), "adapters.versions"), h("div", { class: "card" }, h("table", { class: "versions" }, h("tbody", {}, ...rows))));
}

function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl", { class: "facts" }, ...shown.map(([key, value]) => h("div", {}, say(h("dt"), key), h("dd", {}, value))));
}
