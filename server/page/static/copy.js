// Copies text to the clipboard, and says so.

import { button, h } from "./dom.js";
import { say, t } from "./i18n.js";
import { toast } from "./toast.js";

/** A button that copies what `read` gives when it is pressed. */
export function copyButton(read, props = { class: "quiet small" }) {
  return say(button({ ...props, on: { click: (event) => copy(read(), event.currentTarget) } }), "shell.copy");
}

async function copy(text, beside) {
  if (await isCopied(text, beside)) toast(t("shell.copied"));
  else toast(t("shell.copyFailed"), "danger");
}

/** The clipboard is there in secure contexts alone; elsewhere the browser copies what is selected. */
async function isCopied(text, beside) {
  try {
    if (!navigator.clipboard) return isSelectionCopied(text, beside);
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

function isSelectionCopied(text, beside) {
  const field = h("textarea", { class: "hidden-visually", value: text, "aria-hidden": "true" });
  beside.after(field); // inside the dialog, if there is one: all else is inert
  field.select();
  const isDone = document.execCommand("copy");
  field.remove();
  beside.focus();
  return isDone;
}
