// A row of buttons of which one is pressed.

import { button, h } from "./dom.js";
import { say } from "./i18n.js";

/** `choices`: [value, key of a text] or [value, null, text]; the first is chosen. */
export function createSegments(choices, onChange) {
  let chosen = choices[0][0];
  const buttons = choices.map(([value, key, text]) => {
    const node = button({ on: { click: () => choose(value) } }, text ?? "");
    return key === null ? node : say(node, key);
  });
  const node = h("div", { class: "segments", role: "group" }, ...buttons);
  press();

  function choose(value) {
    chosen = value;
    press();
    onChange(value);
  }

  function press() {
    buttons.forEach((each, index) => each.setAttribute("aria-pressed", String(choices[index][0] === chosen)));
  }

  return { node, value: () => chosen };
}
