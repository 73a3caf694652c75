// Light, dark, or as the system has it. Kept in this browser.

import { label, t } from "./i18n.js";
import { createStorage } from "./storage.js";

const STORED = "hotprompt.theme";
const THEMES = ["auto", "light", "dark"];

/** Let a button go through the themes. */
export function installTheme(control) {
  const storage = createStorage("local");
  let theme = THEMES.find((each) => each === storage.get(STORED)) ?? "auto";
  control.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    storage.set(STORED, theme);
    show();
  });
  document.addEventListener("languagechange", show);
  show();

  function show() {
    document.documentElement.dataset.theme = theme;
    label(control, "shell.theme", { theme: t(`shell.theme.${theme}`) });
  }
}
