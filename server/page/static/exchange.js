// What the user said, and the cards of its answers beside each other. The user's words can be edited.

import { createAnswerCard } from "./answer.js";
import { button, h } from "./dom.js";
import { say } from "./i18n.js";

/** `cards`: [answer, actions] from the first lane to the last; `onEdit(text)` replaces the user's words. */
export function createExchangeView(text, cards, onEdit) {
  const made = cards.map(([answer, actions]) => [answer, createAnswerCard(answer, actions)]);
  const node = h(
    "div",
    { class: "exchange", dataset: { lanes: made.length } },
    createTurn(text, onEdit),
    h("div", { class: "answers" }, ...made.map(([, card]) => card.node)),
  );
  return { node, cards: new Map(made) };
}

function createTurn(text, onEdit) {
  const node = say(h("article", { class: "turn" }), "turn.label", {}, "label");
  show();
  return node;

  function show() {
    node.replaceChildren(
      say(button({ class: "quiet small", on: { click: edit } }), "turn.edit"),
      h("div", { class: "turn-text" }, text),
    );
  }

  function edit() {
    const field = say(
      h("textarea", { value: text, rows: Math.min(text.split("\n").length + 1, 12) }),
      "turn.label",
      {},
      "label",
    );
    const form = h(
      "form",
      { class: "turn-form", on: { submit: send, keydown: steer } },
      field,
      h(
        "div",
        { class: "row" },
        say(h("button", { class: "primary small", type: "submit" }), "turn.send"),
        say(button({ class: "small", on: { click: leave } }), "shell.cancel"),
        say(h("span", { class: "muted small" }), "turn.note"),
      ),
    );
    node.replaceChildren(form);
    field.focus();

    function send(event) {
      event.preventDefault();
      if (field.value.trim()) onEdit(field.value);
    }

    function steer(event) {
      if (event.key === "Escape") {
        event.stopPropagation(); // it leaves the form, and stops no answer
        leave();
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.target === field) send(event);
    }

    function leave() {
      show();
      node.querySelector("button").focus();
    }
  }
}
