// The chat view: puts models, transcript, composer and settings together, and does what their buttons ask for.

import { announcement } from "./answer.js";
import { showCode } from "./code.js";
import { createComposer } from "./composer.js";
import { addLane, bodyOfAnswer, hasRunning, keep, nextBody, restored } from "./conversation.js";
import { button, h } from "./dom.js";
import { createExchangeView } from "./exchange.js";
import { label, say, t } from "./i18n.js";
import { icon } from "./icons.js";
import { createLaneBar } from "./lanes.js";
import { pickModel } from "./picker.js";
import { followEnd } from "./scrolling.js";
import { showSeen } from "./seen.js";
import { createSession } from "./session.js";
import { createSettings } from "./settings.js";
import { toast } from "./toast.js";

const EXAMPLES = ["chat.example.one", "chat.example.two", "chat.example.three"];

/** Fill the section. Gives back `choose(model)`, which talks to that model alone. */
export function mount(section, { api, keys }) {
  const conversation = restored();
  const session = createSession(api, conversation, { onStructure: showAll, onAnswer: showAnswer });
  const lanes = createLaneBar(conversation, { onPick: pick, onAdd: add, onRemove: remove });
  const settings = createSettings(conversation, { onChange: () => keep(conversation), onClose: toggleSettings });
  const said = h("p", { class: "hidden-visually", role: "status" });
  const exchanges = h("div");
  const transcript = say(h("div", { class: "transcript", tabindex: 0 }, exchanges), "chat.transcript", {}, "label");
  const goToEnd = followEnd(transcript, exchanges);
  const settingsButton = label(
    button({ class: "icon", "aria-controls": "settings", on: { click: toggleSettings } }, icon("settings")),
    "settings.title",
  );
  const newChat = button(
    { class: "quiet", id: "new-chat", on: { click: begin } },
    icon("pencil"),
    say(h("span"), "chat.new"),
  );
  const composer = createComposer(conversation, {
    onSend: (text) => session.send(text),
    onStop: () => session.stopAll(),
    tools: [
      say(button({ class: "quiet small", on: { click: () => showSeen(api, draftBodies()) } }), "chat.seen"),
      say(
        button({ class: "quiet small", on: { click: () => showCode(draftBodies(), keys.current() !== null) } }),
        "chat.code",
      ),
    ],
  });
  let views = new Map(); // by exchange: its view, and what it was made of
  const states = new WeakMap(); // by answer: the state that was announced last

  section.append(
    h(
      "div",
      { class: "chat-main" },
      h("div", { class: "chat-bar" }, lanes.node, label(newChat, "chat.new"), settingsButton),
      transcript,
      composer.node,
      said,
    ),
    settings,
  );
  document.addEventListener("keydown", stopByKey); // wherever the focus is: a button that is gone leaves it nowhere
  showAll();
  composer.grow();
  goToComposer();
  findModel();

  function stopByKey(event) {
    if (event.key !== "Escape" || event.isComposing) return;
    if (!section.hidden && !document.querySelector("dialog[open]")) session.stopAll();
  }

  /** Let the next key be part of a message; on a phone that would bring up its keyboard. */
  function goToComposer() {
    if (matchMedia("(hover: hover)").matches) composer.focus();
  }

  /** Begin with the base model where nothing was chosen; or with the first that this key may use. */
  async function findModel() {
    if (conversation.lanes[0].model !== null) return;
    try {
      const cards = (await api.json("v1/models")).data;
      const first = cards.find((card) => card.parent === null) ?? cards[0];
      for (const lane of conversation.lanes) lane.model ??= first?.id ?? null;
    } catch (error) {
      toast(error.message, "danger");
    }
    showLanes();
  }

  async function pick(lane) {
    setModel(lane, await pickModel(api, lane.model));
  }

  function setModel(lane, model) {
    if (model !== null) lane.model = model;
    showLanes();
  }

  function choose(model) {
    conversation.lanes.splice(1);
    setModel(conversation.lanes[0], model);
    goToComposer();
  }

  function add() {
    const lane = addLane(conversation);
    showAll();
    pick(lane);
  }

  function remove(lane) {
    for (const exchange of conversation.exchanges) {
      if (exchange.answers[lane.id]) session.stop(exchange.answers[lane.id]);
      delete exchange.answers[lane.id];
    }
    conversation.lanes.splice(conversation.lanes.indexOf(lane), 1);
    showAll();
  }

  function begin() {
    session.clear();
    goToComposer();
  }

  function toggleSettings() {
    settings.hidden = !settings.hidden;
    settingsButton.setAttribute("aria-expanded", String(!settings.hidden));
    if (settings.hidden) settingsButton.focus();
    else settings.querySelector("textarea").focus();
  }

  function draftBodies() {
    return conversation.lanes.map((lane) => nextBody(conversation, lane, composer.text() || t("chat.example.one")));
  }

  function showLanes() {
    lanes.update();
    showRunning();
    keep(conversation);
  }

  /** Bring the transcript up to date when exchanges or answers came or went. */
  function showAll() {
    views = new Map(conversation.exchanges.map((exchange) => [exchange, viewOf(exchange)]));
    const nodes = [...views.values()].map(({ view }) => view.node);
    exchanges.replaceChildren(...(nodes.length > 0 ? nodes : [welcome()]));
    goToEnd();
    showLanes();
  }

  function viewOf(exchange) {
    const isLast = exchange === conversation.exchanges.at(-1);
    const lanesHere = conversation.lanes.filter((lane) => exchange.answers[lane.id]);
    const answers = lanesHere.map((lane) => exchange.answers[lane.id]);
    const before = views.get(exchange);
    const isSame = before?.isLast === isLast && before.answers.length === answers.length;
    if (isSame && before.answers.every((answer, index) => answer === answers[index])) return before;
    const cards = lanesHere.map((lane) => [exchange.answers[lane.id], actionsOf(exchange, lane, isLast)]);
    const view = createExchangeView(exchange.text, cards, (text) => session.resend(exchange, text));
    return { view, isLast, answers };
  }

  function actionsOf(exchange, lane, isLast) {
    return {
      stop: () => session.stop(exchange.answers[lane.id]),
      regenerate: isLast ? () => regenerate(exchange, lane) : null,
      pick: () => pick(lane),
      showSeen: () => showSeen(api, [bodyOfAnswer(conversation, lane, exchange)]),
      showCode: () => showCode([bodyOfAnswer(conversation, lane, exchange)], keys.current() !== null),
    };
  }

  function showAnswer(answer) {
    for (const { view } of views.values()) view.cards.get(answer)?.update();
    if (states.get(answer) !== answer.state) {
      states.set(answer, answer.state);
      said.textContent = announcement(answer);
    }
    showRunning();
  }

  function showRunning() {
    composer.update({
      isRunning: hasRunning(conversation),
      isReady: conversation.lanes.every((lane) => lane.model !== null),
    });
  }

  function regenerate(exchange, lane) {
    session.regenerate(exchange, lane);
    goToComposer(); // the button that was pressed is gone
  }

  function compose(text) {
    composer.write(text);
    composer.focus();
  }

  function welcome() {
    return h(
      "div",
      { class: "welcome" },
      say(h("h1"), "chat.welcome"),
      say(h("p", { class: "muted" }), "chat.welcomeMore"),
      h(
        "div",
        { class: "examples" },
        ...EXAMPLES.map((key) => say(button({ on: { click: () => compose(t(key)) } }), key)),
      ),
    );
  }

  return { choose };
}
