// The dialog that shows what the model sees of a request: virtual tokens, the rendered text, and its tokens.

import { openDialog } from "./dialog.js";
import { h } from "./dom.js";
import { formatNumber, say, t } from "./i18n.js";
import { createRequestRow } from "./request-row.js";

const MAX_TOKENS_SHOWN = 4096;
const PROMPT_FIELDS = ["model", "messages"];

/** Show the requests, one for each model, as the server renders them. */
export function showSeen(api, bodies) {
  const leaving = new AbortController();
  const place = h("div", { class: "seen", tabindex: 0 });
  const facts = h("p", { class: "muted small" });
  const read = new Map(); // by index of the body: what the server said of it
  let text = "";
  const row = createRequestRow(bodies, {
    forms: [
      ["text", "seen.text"],
      ["tokens", "seen.tokens"],
    ],
    formLabel: "seen.form",
    read: () => text,
    onChange: show,
  });
  openDialog({
    title: "seen.title",
    wide: true,
    body: [row.node, facts, place],
    onClose: () => leaving.abort(),
  });
  show();

  async function show() {
    const index = row.index();
    if (!read.has(index)) read.set(index, readSeen(api, bodies[index], leaving.signal));
    try {
      const seen = await read.get(index);
      if (index === row.index()) write(seen, row.form());
    } catch (error) {
      read.delete(index);
      if (error.name !== "AbortError") place.replaceChildren(h("p", { class: "box danger" }, error.message));
    }
  }

  function write({ rendered, names }, form) {
    text = rendered.prompt;
    say(facts, rendered.num_virtual_tokens === 0 ? "seen.factsOfBase" : "seen.facts", {
      tokens: formatNumber(rendered.token_ids.length),
      virtual: formatNumber(rendered.num_virtual_tokens),
      context: formatNumber(rendered.max_model_len),
    });
    place.replaceChildren(
      ...virtualChip(rendered.num_virtual_tokens),
      ...(form === "text" ? [h("span", {}, text)] : tokenNodes(rendered, names)),
    );
  }
}

async function readSeen(api, body, signal) {
  const asked = { method: "POST", signal };
  const prompt = Object.fromEntries(PROMPT_FIELDS.map((name) => [name, body[name]]));
  const rendered = await api.json("v1/chat/completions/render", { ...asked, body });
  const { token_strs: names } = await api.json("tokenize", { ...asked, body: { ...prompt, return_token_strs: true } });
  return { rendered, names };
}

function virtualChip(count) {
  return count === 0
    ? []
    : [h("span", { class: "chip accent" }, t("seen.virtual", { count: formatNumber(count) })), " "];
}

function tokenNodes({ token_ids: ids }, names) {
  const nodes = ids.slice(0, MAX_TOKENS_SHOWN).map((id, index) => {
    const name = names[index] ?? "";
    return h("span", { class: "token", title: `${id}` }, readable(name), name.endsWith("Ċ") && h("br"));
  });
  if (ids.length > MAX_TOKENS_SHOWN)
    nodes.push(h("span", { class: "muted" }, ` +${formatNumber(ids.length - MAX_TOKENS_SHOWN)}`));
  return nodes;
}

/** Byte-level vocabularies write a space as Ġ and a line break as Ċ, sentencepiece's a space as ▁. */
function readable(name) {
  return name.replaceAll("Ġ", "␣").replaceAll("▁", "␣").replaceAll("Ċ", "⏎");
}
