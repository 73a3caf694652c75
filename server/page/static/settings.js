// The panel with the system prompt and the sampling settings. An empty field leaves the choice to the adapter.

import { button, h } from "./dom.js";
import { label, say } from "./i18n.js";
import { icon } from "./icons.js";

const FIELDS = [
  { name: "temperature", min: 0, max: 2, step: 0.1 },
  { name: "top_p", min: 0.01, max: 1, step: 0.01 },
  { name: "top_k", min: 0, max: 1000000, step: 1 },
  { name: "min_p", min: 0, max: 1, step: 0.01 },
  { name: "max_tokens", min: 1, max: 1000000, step: 1 },
  { name: "seed", min: 0, max: Number.MAX_SAFE_INTEGER, step: 1 },
  { name: "presence_penalty", min: -2, max: 2, step: 0.1 },
  { name: "frequency_penalty", min: -2, max: 2, step: 0.1 },
  { name: "repetition_penalty", min: 0.1, max: 10, step: 0.1 },
];

/** The panel; `onChange` is called after each change of the conversation's `system` or `sampling`. */
export function createSettings(conversation, { onChange, onClose }) {
  const system = h("textarea", {
    rows: 4,
    value: conversation.system,
    on: {
      input() {
        conversation.system = system.value;
        onChange();
      },
    },
  });
  const inputs = FIELDS.map((field) => numberInput(field, conversation.sampling, onChange));
  const stop = stopInput(conversation.sampling, onChange);

  function reset() {
    for (const name of Object.keys(conversation.sampling)) delete conversation.sampling[name];
    conversation.system = "";
    for (const field of [system, stop, ...inputs]) field.value = "";
    onChange();
  }

  function steer(event) {
    if (event.key !== "Escape") return;
    event.stopPropagation(); // it closes the panel, and stops no answer
    onClose();
  }

  return say(
    h(
      "aside",
      { class: "settings", id: "settings", hidden: true, on: { keydown: steer } },
      h(
        "div",
        { class: "settings-head" },
        say(h("h2"), "settings.title"),
        label(button({ class: "icon", on: { click: onClose } }, icon("close")), "shell.close"),
      ),
      h(
        "label",
        { class: "field" },
        say(h("span"), "settings.system"),
        say(system, "settings.systemHint", {}, "placeholder"),
      ),
      h("div", { class: "settings-grid" }, ...FIELDS.map(({ name }, index) => fieldOf(name, inputs[index]))),
      fieldOf("stop", stop),
      say(h("p", { class: "muted small" }), "settings.note"),
      say(button({ class: "small", on: { click: reset } }), "settings.reset"),
    ),
    "settings.title",
    {},
    "label",
  );
}

function fieldOf(name, input) {
  return h("label", { class: "field" }, say(h("span"), `settings.${name}`), input);
}

function numberInput({ name, ...bounds }, sampling, onChange) {
  const input = h("input", { type: "number", inputmode: "decimal", name, ...bounds, value: sampling[name] ?? "" });
  input.addEventListener("input", () => {
    if (input.value === "" || !input.validity.valid) delete sampling[name];
    else sampling[name] = input.valueAsNumber;
    input.toggleAttribute("aria-invalid", !input.validity.valid);
    onChange();
  });
  return say(input, "settings.default", {}, "placeholder");
}

function stopInput(sampling, onChange) {
  const input = h("textarea", { name: "stop", rows: 2, value: (sampling.stop ?? []).join("\n") });
  input.addEventListener("input", () => {
    const lines = input.value.split("\n").filter((line) => line !== "");
    if (lines.length > 0) sampling.stop = lines.slice(0, 4);
    else delete sampling.stop;
    onChange();
  });
  return say(input, "settings.stopHint", {}, "placeholder");
}
