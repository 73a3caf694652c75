// The dialog that shows a request as code to copy.

import { urlOf } from "./api.js";
import { openDialog } from "./dialog.js";
import { h } from "./dom.js";
import { createRequestRow } from "./request-row.js";
import { asCurl, asJavaScript, asPython } from "./snippets.js";

const FORMS = { curl: asCurl, python: asPython, javascript: asJavaScript };

/** Show the requests, one for each model; the key itself is never written. */
export function showCode(bodies, hasKey) {
  const code = h("code");
  const row = createRequestRow(bodies, {
    forms: Object.keys(FORMS).map((name) => [name, `code.${name}`]),
    formLabel: "code.form",
    read: () => code.textContent,
    onChange: show,
  });
  openDialog({
    title: "code.title",
    wide: true,
    body: [row.node, h("pre", { class: "code", tabindex: 0 }, code)],
  });
  show();

  function show() {
    code.textContent = FORMS[row.form()](urlOf("./"), bodies[row.index()], hasKey);
  }
}
