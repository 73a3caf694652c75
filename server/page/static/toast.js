// Short messages at the foot of the page, which screen readers hear too.

import { h } from "./dom.js";

const SECONDS = 4;

/** Show a message for some seconds; `kind`: "plain" or "danger". */
export function toast(text, kind = "plain") {
  const node = h("div", { class: `toast ${kind}` }, text);
  document.getElementById("toasts").append(node);
  setTimeout(() => node.remove(), SECONDS * 1000);
}
