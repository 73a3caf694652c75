// The list of adapters: search, order, and pages of rows, so that ten thousand of them are as quick as ten.

import { chip, gainOf, kindOf, sayingChip, sizeOf, verificationChip } from "./adapters-words.js";
import { button, h } from "./dom.js";
import { formatNumber, label, say, t } from "./i18n.js";

const PAGE_SIZE = 50;
const COLUMNS = ["name", "kind", "verification", "gain", "size", "memory", "use", "actions"];
const ORDERS = {
  name: () => 0, // as the server sends them
  use: (one, other) => other.usage.requests - one.usage.requests,
  created: (one, other) => other.created - one.created,
  size: (one, other) => other.size - one.size,
};

export function createList({ onOpen, onChat }) {
  const count = h("span", { class: "muted" });
  const search = h("input", { type: "search", maxlength: 128, spellcheck: "false", on: { input: restart } });
  say(say(search, "adapters.search", {}, "placeholder"), "adapters.search", {}, "label");
  const order = say(h("select", { on: { change: restart } }), "adapters.order", {}, "label");
  order.append(...Object.keys(ORDERS).map((name) => say(h("option", { value: name }), `adapters.order.${name}`)));
  const rows = h("tbody");
  const table = h("table", { class: "adapters-table" }, h("thead", {}, h("tr", {}, ...COLUMNS.map(heading))), rows);
  const damagedBox = h("div", { class: "box danger", hidden: true });
  const note = h("div", { class: "adapters-empty", hidden: true });
  const range = h("span", { class: "muted small", role: "status" });
  const previous = say(button({ class: "small", on: { click: () => turn(-1) } }), "adapters.previous");
  const next = say(button({ class: "small", on: { click: () => turn(1) } }), "adapters.next");
  const pager = h("div", { class: "row adapters-pager" }, range, h("span", { class: "grow" }), previous, next);
  const tools = h("div", { class: "row adapters-tools" }, search, order);
  const node = h("div", { class: "adapters-list" }, tools, damagedBox, h("div", { class: "card adapters-card" }, table, note), pager);
  let adapters = null;
  let damaged = [];
  let page = 0;

  document.addEventListener("languagechange", show);

  function fill(found, foundDamaged) {
    adapters = found;
    damaged = foundDamaged;
    show();
  }

  function restart() {
    page = 0;
    show();
  }

  function turn(step) {
    page += step;
    show();
    node.closest(".view").scrollTop = 0;
  }

  function show() {
    if (adapters === null) return;
    const found = adapters.filter(matcher(search.value)).sort(ORDERS[order.value]);
    page = Math.min(page, Math.max(0, Math.ceil(found.length / PAGE_SIZE) - 1));
    const first = page * PAGE_SIZE;
    const shown = found.slice(first, first + PAGE_SIZE);
    rows.replaceChildren(...shown.map((adapter) => rowOf(adapter, { onOpen, onChat })));
    count.textContent = formatNumber(adapters.length);
    range.textContent = t("adapters.range", {
      first: formatNumber(Math.min(first + 1, found.length)),
      last: formatNumber(first + shown.length),
      all: formatNumber(found.length),
    });
    previous.disabled = page === 0;
    next.disabled = first + PAGE_SIZE >= found.length;
    pager.hidden = found.length <= PAGE_SIZE;
    tools.hidden = adapters.length === 0;
    table.hidden = found.length === 0;
    note.hidden = found.length > 0;
    note.replaceChildren(...(adapters.length === 0 ? emptyNote() : [say(h("p"), "adapters.noneFound")]));
    showDamaged();
  }

  function showDamaged() {
    damagedBox.hidden = damaged.length === 0;
    damagedBox.replaceChildren(
      say(h("strong"), "adapters.damaged"),
      h("ul", {}, ...damaged.map(({ id, problem }) => h("li", {}, h("code", {}, id), `: ${problem}`))),
    );
  }

  return { node, count, fill };
}

function heading(column) {
  const node = h("th", { scope: "col", class: `col-${column}` });
  return say(column === "actions" ? h("th", { scope: "col", class: "col-actions quiet-head" }) : node, `adapters.column.${column}`);
}

function emptyNote() {
  return [say(h("h2"), "adapters.empty"), say(h("p", { class: "muted" }), "adapters.emptyMore")];
}

function matcher(text) {
  const words = text.trim().toLowerCase().split(/\s+/);
  return ({ id, aliases, kind }) => {
    const said = `${id} ${aliases.join(" ")} ${kind}`.toLowerCase();
    return words.every((word) => said.includes(word));
  };
}

function rowOf(adapter, { onOpen, onChat }) {
  const { id, aliases, pinned, resident, size, usage, running, training } = adapter;
  const opener = button({ class: "link", on: { click: () => onOpen(id) } }, id);
  const chat = label(button({ class: "small", on: { click: () => onChat(id) } }), "adapters.chatWith", { name: id });
  const gain = gainOf(training);
  const memory = resident ? sayingChip("adapters.resident", "good") : sayingChip("adapters.onDisk");
  const cells = {
    name: [opener, ...aliases.map((alias) => chip(alias)), pinned && sayingChip("adapters.pinned", "accent")],
    kind: [kindOf(adapter), adapter.num_virtual_tokens > 0 && h("span", { class: "muted" }, ` · ${adapter.num_virtual_tokens}`)],
    verification: [verificationChip(adapter.verification)],
    gain: [gain ? say(h("span"), ...gain) : h("span", { class: "muted" }, "—")],
    size: [sizeOf(size)],
    memory: [memory],
    use: [
      say(h("span"), "adapters.requests", { count: formatNumber(usage.requests) }),
      running > 0 && sayingChip("adapters.running", "accent", { count: formatNumber(running) }),
    ],
    actions: [say(chat, "adapters.chat")],
  };
  return h("tr", {}, ...COLUMNS.map((column) => h("td", { class: `col-${column}` }, ...cells[column])));
}
