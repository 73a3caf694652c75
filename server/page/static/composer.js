// Where the user writes: a field that grows, and one button that sends or stops.

import { button, h } from "./dom.js";
import { label, say } from "./i18n.js";
import { icon } from "./icons.js";

const MAX_HEIGHT = 260;

/** `update(isRunning, isReady)` turns the button between sending and stopping. */
export function createComposer(conversation, { onSend, onStop, tools }) {
  const field = h("textarea", {
    rows: 1,
    id: "message",
    value: conversation.draft,
    maxlength: 1000000,
    on: { input, keydown: steer },
  });
  say(say(field, "composer.placeholder", {}, "placeholder"), "composer.label", {}, "label");
  const sender = button({ class: "primary send", id: "send", on: { click: act } }, icon("send"));
  const node = h(
    "form",
    { class: "composer", on: { submit: (event) => event.preventDefault() } },
    h("div", { class: "composer-box" }, field, sender),
    h(
      "div",
      { class: "composer-tools" },
      ...tools,
      h("span", { class: "grow" }),
      say(h("span", { class: "muted small keys" }), "composer.keys"),
    ),
  );
  let isRunning = false;
  let isReady = false;

  function update(state) {
    ({ isRunning, isReady } = state);
    sender.replaceChildren(icon(isRunning ? "stop" : "send"));
    label(sender, isRunning ? "composer.stop" : "composer.send");
    sender.disabled = !isRunning && (!isReady || field.value.trim() === "");
  }

  function input() {
    conversation.draft = field.value;
    grow();
    update({ isRunning, isReady });
  }

  function grow() {
    field.style.height = "auto";
    field.style.height = `${Math.min(field.scrollHeight + 2, MAX_HEIGHT)}px`;
  }

  function steer(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!isRunning) act();
  }

  function act() {
    if (isRunning) return onStop();
    const text = field.value;
    if (!isReady || text.trim() === "") return;
    write("");
    onSend(text);
  }

  /** Put a text into the field. */
  function write(text) {
    field.value = text;
    input();
  }

  return { node, update, write, grow, focus: () => field.focus(), text: () => field.value };
}
