// Modal dialogs: a title, a body, a foot of buttons. Escape and a click beside it close one.

import { button, h, newId } from "./dom.js";
import { icon } from "./icons.js";
import { label, say } from "./i18n.js";

/**
 * Open a dialog; `body` and `foot` are lists of nodes. It is removed when it closes, and `onClose` is called then.
 * Returns the dialog element; call its `close()`.
 */
export function openDialog({ title, params = {}, body, foot = [], wide = false, onClose = () => {} }) {
  const id = newId("dialog");
  const closer = label(button({ class: "icon", on: { click: () => node.close() } }, icon("close")), "shell.close");
  const node = h(
    "dialog",
    { class: wide ? "wide" : "", "aria-labelledby": id },
    h("div", { class: "dialog-head" }, say(h("h2", { id }), title, params), closer),
    h("div", { class: "dialog-body" }, ...body),
    foot.length > 0 && h("div", { class: "dialog-foot" }, ...foot),
  );
  node.addEventListener("click", (event) => {
    if (event.target === node && isBeside(node, event)) node.close();
  });
  node.addEventListener("close", () => {
    node.remove();
    onClose();
  });
  document.body.append(node);
  node.showModal();
  return node;
}

function isBeside(node, event) {
  const box = node.getBoundingClientRect();
  const { clientX: x, clientY: y } = event;
  return x < box.left || x > box.right || y < box.top || y > box.bottom;
}
