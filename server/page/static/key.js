// The API key: asked for in a dialog when the server wants one, kept in this tab's session storage alone.

import { openDialog } from "./dialog.js";
import { button, h } from "./dom.js";
import { say, t } from "./i18n.js";
import { createStorage } from "./storage.js";
import { toast } from "./toast.js";

const STORED = "hotprompt.key";

export function createKeys() {
  const storage = createStorage("session");
  let asking = null;

  function current() {
    return storage.get(STORED);
  }

  /** Resolves with whether a key was given; whoever asks meanwhile shares the dialog. `reason` is a text's key. */
  function ask(reason) {
    asking ??= openKeyDialog(storage, reason).finally(() => {
      asking = null;
    });
    return asking;
  }

  return { current, ask };
}

function openKeyDialog(storage, reason) {
  return new Promise((resolve) => {
    let isGiven = false;
    const input = h("input", { type: "password", name: "key", autocomplete: "off", required: true, maxlength: 512 });
    const form = h(
      "form",
      { class: "stack", on: { submit } },
      reason && say(h("p", { class: "box" }), reason),
      h("label", { class: "field" }, say(h("span"), "key.field"), input),
      say(h("p", { class: "muted small" }), "key.note"),
      h(
        "div",
        { class: "row" },
        say(h("button", { class: "primary", type: "submit" }), "key.use"),
        storage.get(STORED) !== null && say(button({ class: "quiet", on: { click: forget } }), "key.forget"),
      ),
    );
    const dialog = openDialog({ title: "key.title", body: [form], onClose: () => resolve(isGiven) });
    input.focus();

    function submit(event) {
      event.preventDefault();
      storage.set(STORED, input.value.trim());
      isGiven = true;
      dialog.close();
    }

    function forget() {
      storage.remove(STORED);
      toast(t("key.forgotten"));
      dialog.close();
    }
  });
}
