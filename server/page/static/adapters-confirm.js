// Questions before something changes: yes or no, or a name.

import { openDialog } from "./dialog.js";
import { button, h } from "./dom.js";
import { say } from "./i18n.js";

/** Resolves with whether the user agreed. `question`, `more` and `action` are texts' keys. */
export function confirmed({ title, more, action, params, look = "primary" }) {
  return new Promise((resolve) => {
    let isAgreed = false;
    const agree = say(button({ class: look, on: { click: () => answer(true) } }), action);
    const refuse = say(button({ on: { click: () => answer(false) } }), "shell.cancel");
    const dialog = openDialog({ title, params, body: [say(h("p"), more, params)], foot: [refuse, agree], onClose: () => resolve(isAgreed) });
    refuse.focus();

    function answer(agreed) {
      isAgreed = agreed;
      dialog.close();
    }
  });
}

/** Resolves with the text that was given, or null. */
export function asked({ title, field, more, action, params, pattern }) {
  return new Promise((resolve) => {
    let given = null;
    const input = h("input", { type: "text", required: true, maxlength: 63, pattern, autocomplete: "off", spellcheck: "false" });
    const form = h(
      "form",
      { class: "register-form", on: { submit } },
      h("label", { class: "field" }, say(h("span"), field), input),
      say(h("p", { class: "muted small" }), more, params),
      h("div", { class: "row" }, say(h("button", { class: "primary", type: "submit" }), action)),
    );
    const dialog = openDialog({ title, params, body: [form], onClose: () => resolve(given) });
    input.focus();

    function submit(event) {
      event.preventDefault();
      given = input.value;
      dialog.close();
    }
  });
}
