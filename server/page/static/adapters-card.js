// The model card of a version, with its loss curve. The card is Markdown of whoever made the adapter.

import { drawCurve, takeCurve } from "./adapters-curve.js";
import { h } from "./dom.js";
import { say } from "./i18n.js";
import { createMarkdown } from "./markdown.js";

const FRONT_MATTER = /^---\n[\s\S]*?\n---\n/;
const MAX_SHOWN = 200_000;

export function createCard(api) {
  const node = h("section", { class: "card-section" });
  let wanted = null;

  /** Show the card of `name@digest`, or nothing where it has none. */
  async function show(reference) {
    if (reference === wanted) return;
    wanted = reference;
    const text = await read(reference);
    if (reference === wanted) node.replaceChildren(...(text === null ? [] : parts(text)));
  }

  async function read(reference) {
    try {
      return await (await api.request(`v1/adapters/${encodeURIComponent(reference)}/card`)).text();
    } catch {
      return null;
    }
  }

  return { node, show };
}

function parts(card) {
  const { rest, series } = takeCurve(card.slice(0, MAX_SHOWN).replace(FRONT_MATTER, ""));
  const text = h("div", { class: "markdown" });
  createMarkdown(text).update(rest);
  return [
    ...(series.length > 0 ? [drawCurve(series)] : []),
    h("details", { class: "model-card" }, say(h("summary"), "adapters.card"), text),
  ];
}
