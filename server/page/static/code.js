// The dialog that shows a request as code to copy.

import { urlOf } from "./api.js";
import { copyButton } from "./copy.js";
import { openDialog } from "./dialog.js";
import { h } from "./dom.js";
import { say } from "./i18n.js";
import { createSegments } from "./segments.js";
import { asCurl, asJavaScript, asPython } from "./snippets.js";

const FORMS = { curl: asCurl, python: asPython, javascript: asJavaScript };

/** Show the requests, one for each model; the key itself is never written. */
export function showCode(bodies, hasKey) {
  const code = h("code");
  const forms = createSegments(
    Object.keys(FORMS).map((name) => [name, `code.${name}`]),
    show,
  );
  const models = createSegments(
    bodies.map((body, index) => [index, null, body.model]),
    show,
  );
  say(forms.node, "code.form", {}, "label");
  say(models.node, "code.model", {}, "label");
  openDialog({
    title: "code.title",
    wide: true,
    body: [
      h(
        "div",
        { class: "row" },
        bodies.length > 1 && models.node,
        forms.node,
        h("span", { class: "grow" }),
        copyButton(() => code.textContent),
      ),
      h("pre", { class: "code", tabindex: 0 }, code),
    ],
  });
  show();

  function show() {
    code.textContent = FORMS[forms.value()](urlOf("./"), bodies[models.value()], hasKey);
  }
}
