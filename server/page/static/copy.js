// Copies text to the clipboard, and says so.

import { button } from "./dom.js";
import { say, t } from "./i18n.js";
import { toast } from "./toast.js";

/** A button that copies what `read` gives when it is pressed. */
export function copyButton(read, props = { class: "quiet small" }) {
  return say(button({ ...props, on: { click: () => copy(read()) } }), "shell.copy");
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text); // there in secure contexts alone, localhost among them
    toast(t("shell.copied"));
  } catch {
    toast(t("shell.copyFailed"), "danger");
  }
}
