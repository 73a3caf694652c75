// The row above a view of requests: which model's, in which form, and a button that copies what is shown.

import { copyButton } from "./copy.js";
import { h } from "./dom.js";
import { say } from "./i18n.js";
import { createSegments } from "./segments.js";

/** `forms`: choices of createSegments, named by the text `formLabel`; `onChange` is called after each choice. */
export function createRequestRow(bodies, { forms, formLabel, read, onChange }) {
  const form = createSegments(forms, onChange);
  const index = createSegments(
    bodies.map((body, each) => [each, null, body.model]),
    onChange,
  );
  say(index.node, "code.model", {}, "label");
  say(form.node, formLabel, {}, "label");
  const node = h(
    "div",
    { class: "row" },
    bodies.length > 1 && index.node,
    form.node,
    h("span", { class: "grow" }),
    copyButton(read),
  );
  return { node, form: form.value, index: index.value };
}
