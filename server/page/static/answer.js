// The card of one answer: who answers, the text while it grows, what went wrong, how fast it came, what can be done.

import { isRunning } from "./conversation.js";
import { copyButton } from "./copy.js";
import { button, h } from "./dom.js";
import { formatNumber, say, t } from "./i18n.js";
import { createMarkdown } from "./markdown.js";

const SHORT_DIGEST = 8;

/** `actions`: stop, regenerate (null where it cannot be), pick, showSeen, showCode. `update()` shows what changed. */
export function createAnswerCard(answer, actions) {
  const version = h("span", { class: "muted small mono" });
  const head = h("header", { class: "answer-head" }, h("strong", { class: "answer-model" }, answer.model), version);
  const thinking = h("div", { class: "thinking-text" });
  const thoughts = h("details", { class: "thinking", hidden: true }, say(h("summary"), "answer.thinking"), thinking);
  const text = h("div", { class: "markdown" });
  const problem = h("div", { hidden: true });
  const stats = h("p", { class: "stats muted small" });
  const tools = h("div", { class: "answer-tools" });
  const node = h(
    "article",
    { class: "answer" },
    head,
    thoughts,
    text,
    problem,
    h("footer", { class: "answer-foot" }, stats, tools),
  );
  say(node, "answer.label", { model: answer.model }, "label");
  const markdown = createMarkdown(text);
  let shownState = null;

  function update() {
    markdown.update(answer.text);
    thinking.textContent = answer.thinking;
    thoughts.hidden = answer.thinking === "";
    stats.replaceChildren(...facts(answer).flatMap((fact, index) => (index === 0 ? [fact] : [" · ", fact])));
    if (answer.state === shownState) return;
    shownState = answer.state;
    node.dataset.state = answer.state;
    node.setAttribute("aria-busy", String(isRunning(answer)));
    version.textContent =
      answer.version && !answer.model.includes("@") ? `@${answer.version.split("@")[1].slice(0, SHORT_DIGEST)}` : "";
    version.title = answer.version ?? "";
    tools.replaceChildren(...toolsOf(answer, actions));
    problem.hidden = answer.error === null;
    if (answer.error) problem.replaceChildren(problemOf(answer, actions));
  }

  update();
  return { node, update };
}

function toolsOf(answer, actions) {
  if (isRunning(answer)) return [say(button({ class: "quiet small", on: { click: actions.stop } }), "answer.stop")];
  return [
    ...(answer.text ? [copyButton(() => answer.text)] : []),
    ...(actions.regenerate && !answer.error
      ? [say(button({ class: "quiet small", on: { click: actions.regenerate } }), "answer.regenerate")]
      : []),
    say(button({ class: "quiet small", on: { click: actions.showSeen } }), "answer.seen"),
    say(button({ class: "quiet small", on: { click: actions.showCode } }), "answer.code"),
  ];
}

function facts({ state, stats }) {
  const said = [];
  const add = (key, params) => said.push(say(h("span"), key, params));
  if (state === "waiting") add("answer.waiting");
  if (stats?.tokens === 1) add("answer.oneToken");
  else if (stats?.tokens) add("answer.tokens", { count: formatNumber(stats.tokens) });
  if (stats?.firstAfter) add("answer.firstAfter", { ms: formatNumber(stats.firstAfter) });
  if (stats?.rate) add("answer.rate", { rate: formatNumber(stats.rate, 1) });
  if (state === "stopped") add("answer.stopped");
  if (stats?.finish === "length") add("answer.byLength");
  return said;
}

/** What went wrong, in the reader's language as far as it is a common thing, and what can be done. */
function problemOf({ error, model, text }, actions) {
  const words = h("p");
  const again =
    actions.regenerate && say(button({ class: "small", on: { click: actions.regenerate } }), "answer.retry");
  const box = h("div", { class: "box danger problem", role: "alert" }, words);
  if (error.code === "model_not_found") {
    say(words, "error.modelGone", { model });
    box.append(say(button({ class: "small", on: { click: actions.pick } }), "error.pickAnother"));
    return box;
  }
  if (error.status === 429) say(words, "error.rateLimited");
  else if (error.status === 503) say(words, "error.busy");
  else if (error.status === 0 && text) say(words, "error.brokenOff");
  else if (error.status === 0) say(words, "error.unreachable");
  else words.textContent = error.message;
  if (words.dataset.i18n && error.status !== 0) box.append(h("p", { class: "small" }, error.message));
  if (again) {
    box.append(again);
    waitFor(again, error);
  }
  return box;
}

/** Let a button wait for as long as the server asked for. */
function waitFor(again, { retryAfter, time }) {
  const left = Math.ceil((time + (retryAfter ?? 0) * 1000 - Date.now()) / 1000);
  again.disabled = left > 0;
  if (left > 0) {
    say(again, "answer.retryIn", { seconds: formatNumber(left) });
    setTimeout(() => waitFor(again, { retryAfter, time }), 1000);
  } else {
    say(again, "answer.retry");
  }
}

/** For screen readers: what happened to an answer. */
export function announcement({ model, state }) {
  return t(`answer.said.${state}`, { model });
}
