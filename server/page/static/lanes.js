// The row of models that answer: one to three, each a button that picks another.

import { MAX_LANES } from "./conversation.js";
import { button, h } from "./dom.js";
import { label, say } from "./i18n.js";
import { icon } from "./icons.js";

/** `update()` shows the conversation's lanes as they are. */
export function createLaneBar(conversation, { onPick, onAdd, onRemove }) {
  const node = say(h("div", { class: "lanes", role: "group" }), "lanes.label", {}, "label");

  function update() {
    const { lanes } = conversation;
    node.replaceChildren(
      ...lanes.map((lane) => laneNode(lane, lanes.length > 1)),
      ...(lanes.length < MAX_LANES ? [adder(lanes.length)] : []),
    );
  }

  function laneNode(lane, isOneOfSeveral) {
    const name = h("span", { class: "lane-name" }, lane.model ?? "…");
    const picker = button({ class: "lane-pick", on: { click: () => onPick(lane) } }, name, icon("down"));
    label(picker, "lanes.pick", { model: lane.model ?? "…" });
    const remover = button({ class: "icon lane-remove", on: { click: () => onRemove(lane) } }, icon("close"));
    label(remover, "lanes.remove", { model: lane.model ?? "…" });
    return h("span", { class: "lane" }, picker, isOneOfSeveral && remover);
  }

  function adder(count) {
    const words = say(h("span"), count === 1 ? "lanes.compare" : "lanes.addAnother");
    return button({ class: "quiet", on: { click: onAdd } }, icon("plus"), words);
  }

  update();
  return { node, update };
}
