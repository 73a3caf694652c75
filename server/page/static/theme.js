// Light, dark, or as the system has it. Kept in this browser.

import { label, t } from "./i18n.js";

const STORED = "hotprompt.theme";
const THEMES = ["auto", "light", "dark"];

/** Let a button go through the themes. */
export function installTheme(control) {
  let theme = localStorage.getItem(STORED) ?? "auto";
  control.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    localStorage.setItem(STORED, theme);
    show();
  });
  document.addEventListener("languagechange", show);
  show();

  function show() {
    document.documentElement.dataset.theme = theme;
    label(control, "shell.theme", { theme: t(`shell.theme.${theme}`) });
  }
}
