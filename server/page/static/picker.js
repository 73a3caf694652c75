// The dialog that a model is picked in: base, adapters with their versions, aliases; or any name that is typed.

import { openDialog } from "./dialog.js";
import { h, newId } from "./dom.js";
import { formatNumber, formatTime, say, t } from "./i18n.js";

const MAX_SHOWN = 100;
const SHORT_DIGEST = 12;

/** Ask for a model; resolves with its name, or null. */
export function pickModel(api, current) {
  return new Promise((resolve) => {
    let picked = null;
    const leaving = new AbortController();
    const list = createList({ current, onPick: pick });
    const dialog = openDialog({
      title: "picker.title",
      body: [list.input, list.node],
      onClose() {
        leaving.abort();
        resolve(picked);
      },
    });
    list.input.focus();
    readModels(api, leaving.signal).then(list.fill, list.fail);

    function pick(model) {
      picked = model;
      dialog.close();
    }
  });
}

async function readModels(api, signal) {
  const cards = (await api.json("v1/models", { signal })).data;
  const { data } = await api.json("v1/adapters", { signal });
  const adapters = new Map(data.map((adapter) => [adapter.id, adapter]));
  const targets = new Map(data.flatMap(({ id, aliases }) => aliases.map((alias) => [alias, id])));
  return cards.flatMap((card) => optionsOf(card, adapters.get(card.id), targets.get(card.id)));
}

function optionsOf(card, adapter, target) {
  if (card.parent === null) return [{ model: card.id, group: "base", detail: "" }];
  if (!adapter) return [{ model: card.id, group: "aliases", detail: target ? `→ ${target}` : "" }];
  const own = { model: card.id, group: "adapters", detail: adapter.kind.replaceAll("_", " ") };
  if (adapter.versions.length < 2) return [own];
  return [own, ...adapter.versions.map((version) => versionOf(adapter, version))];
}

function versionOf(adapter, { digest, created }) {
  const isCurrent = digest === adapter.digest;
  return {
    model: `${adapter.id}@${digest.slice(0, SHORT_DIGEST)}`,
    group: "adapters",
    isVersion: true,
    detail: isCurrent ? t("picker.currentVersion", { time: formatTime(created) }) : formatTime(created),
  };
}

/** A search field over a list box, as ARIA's combobox has it; the field keeps the focus. */
function createList({ current, onPick }) {
  const id = newId("models");
  const node = h("div", { class: "picker-list", role: "listbox", id });
  const input = h("input", {
    type: "text",
    role: "combobox",
    "aria-expanded": true,
    "aria-controls": id,
    "aria-autocomplete": "list",
    autocomplete: "off",
    spellcheck: "false",
    maxlength: 512,
    on: { input: show, keydown: steer },
  });
  say(say(input, "picker.search", {}, "placeholder"), "picker.search", {}, "label");
  say(node, "picker.title", {}, "label");
  let options = [];
  let active = -1;
  node.append(say(h("p", { class: "muted picker-note" }), "picker.reading"));

  function fill(found) {
    options = found;
    show();
  }

  function fail(error) {
    if (error.name !== "AbortError") node.replaceChildren(h("p", { class: "box danger" }, error.message));
  }

  function show() {
    const wanted = input.value.trim();
    const words = wanted.toLowerCase().split(/\s+/);
    const found = options.filter(({ model, detail }) =>
      words.every((word) => `${model} ${detail}`.toLowerCase().includes(word)),
    );
    const nodes = [];
    let group = null;
    for (const option of found.slice(0, MAX_SHOWN)) {
      if (option.group !== group)
        nodes.push(say(h("p", { class: "picker-group", role: "presentation" }), `picker.group.${option.group}`));
      group = option.group;
      nodes.push(itemOf(option));
    }
    if (wanted && !options.some(({ model }) => model === wanted)) {
      nodes.push(itemOf({ model: wanted, detail: t("picker.asTyped"), isTyped: true }));
    }
    if (found.length > MAX_SHOWN) {
      nodes.push(
        say(h("p", { class: "muted picker-note" }), "picker.more", { count: formatNumber(found.length - MAX_SHOWN) }),
      );
    }
    node.replaceChildren(...nodes);
    activate(wanted ? 0 : items().findIndex((item) => item.dataset.model === current));
  }

  function itemOf({ model, detail, isVersion = false }) {
    return h(
      "div",
      {
        class: `picker-item${isVersion ? " version" : ""}`,
        role: "option",
        id: newId("model"),
        "aria-selected": String(model === current),
        dataset: { model },
        on: { click: () => onPick(model) },
      },
      h("span", { class: "picker-name" }, model),
      h("span", { class: "muted small" }, detail),
    );
  }

  function items() {
    return [...node.querySelectorAll("[role=option]")];
  }

  function activate(index) {
    const all = items();
    active = all.length === 0 ? -1 : Math.min(Math.max(index, 0), all.length - 1);
    all.forEach((item, at) => item.classList.toggle("active", at === active));
    input.setAttribute("aria-activedescendant", all[active]?.id ?? "");
    all[active]?.scrollIntoView({ block: "nearest" });
  }

  function steer(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 };
    if (event.key in steps) activate(active + steps[event.key]);
    else if (event.key === "Enter" && !event.isComposing && active >= 0) onPick(items()[active].dataset.model);
    else return;
    event.preventDefault();
  }

  return { node, input, fill, fail };
}
