// One adapter in a dialog: its facts, its versions, its card, and what can be changed.

import { createCard } from "./adapters-card.js";
import { asked, confirmed } from "./adapters-confirm.js";
import { factsOf, trainingOf, versionsOf } from "./adapters-facts.js";
import { chip, kindOf, sayingChip, shortDigest, verificationChip } from "./adapters-words.js";
import { openDialog } from "./dialog.js";
import { button, h } from "./dom.js";
import { label, say, t } from "./i18n.js";
import { icon } from "./icons.js";
import { toast } from "./toast.js";

const NAME = "[A-Za-z0-9][A-Za-z0-9._\\-]{0,62}";

/** Open the dialog of a name; `onChange()` after something of it has changed. */
export function showAdapter({ api, chatWith }, name, { onChange }) {
  const path = `v1/adapters/${encodeURIComponent(name)}`;
  const problem = h("div", { class: "box danger", role: "alert", hidden: true });
  const summary = h("div", { class: "detail" });
  const card = createCard(api);
  const dialog = openDialog({ title: "adapters.detail", params: { name }, body: [problem, summary, card.node], wide: true });
  let record = null;
  read();

  async function read() {
    await done(() => api.json(path));
    if (record !== null) card.show(`${record.id}@${record.digest}`);
  }

  /** Do something that answers with the record, or with nothing; a refusal is shown in the dialog. */
  async function done(act, said = null) {
    dialog.setAttribute("aria-busy", "true");
    for (const control of summary.querySelectorAll("button")) control.disabled = true;
    problem.hidden = true;
    try {
      record = (await act()) ?? record;
      if (said) {
        toast(t(...said));
        onChange();
      }
    } catch (error) {
      problem.hidden = false;
      problem.textContent = error.message;
      problem.scrollIntoView({ block: "nearest" });
    }
    dialog.removeAttribute("aria-busy");
    if (record !== null) show();
  }

  function change(body, said) {
    return done(() => api.json(path, { method: "PATCH", body }), said);
  }

  function show() {
    const focused = document.activeElement?.dataset?.act;
    summary.replaceChildren(
      h("div", { class: "row" }, chip(kindOf(record)), verificationChip(record.verification), record.resident ? sayingChip("adapters.resident", "good") : sayingChip("adapters.onDisk"), record.pinned && sayingChip("adapters.pinned", "accent")),
      actions(),
      factsOf(record),
      trainingOf(record.training),
      versionsOf(record, { rollBack, chat }),
      aliases(),
    );
    if (focused) summary.querySelector(`[data-act="${focused}"]`)?.focus();
  }

  function actions() {
    const act = (key, run, look = "") => say(button({ class: look, dataset: { act: key }, on: { click: run } }), key);
    return h(
      "div",
      { class: "row" },
      act("adapters.chat", () => chat(name), "primary"),
      record.pinned ? act("adapters.unpin", () => pin(false)) : act("adapters.pin", () => pin(true)),
      act("adapters.addAlias", addAlias),
      act("adapters.verify", verify),
      h("span", { class: "grow" }),
      act("adapters.delete", remove, "danger"),
    );
  }

  function aliases() {
    if (record.aliases.length === 0) return "";
    const items = record.aliases.map((alias) => {
      const drop = label(button({ class: "icon small", on: { click: () => removeAlias(alias) } }, icon("close")), "adapters.removeAlias", { alias });
      return h("li", { class: "chip" }, alias, drop);
    });
    return h("section", {}, say(h("h3"), "adapters.aliases"), h("ul", { class: "aliases" }, ...items));
  }

  function chat(model) {
    dialog.close();
    chatWith(model);
  }

  function pin(pinned) {
    return change({ pinned }, [pinned ? "adapters.said.pinned" : "adapters.said.unpinned", { name }]);
  }

  function verify() {
    return done(() => api.json(`${path}/verify`, { method: "POST" }), ["adapters.said.verified", { name }]);
  }

  async function addAlias() {
    const alias = await asked({ title: "adapters.addAlias", field: "adapters.alias", more: "adapters.aliasMore", action: "adapters.addAlias", params: { name }, pattern: NAME });
    if (alias !== null) await change({ alias }, ["adapters.said.aliased", { name, alias }]);
  }

  async function removeAlias(alias) {
    if (!(await confirmed({ title: "adapters.removeAlias", more: "adapters.removeAliasMore", action: "adapters.remove", params: { alias, name }, look: "danger" }))) return;
    await done(async () => {
      await api.json(`v1/adapters/${encodeURIComponent(alias)}`, { method: "DELETE" });
      return api.json(path);
    }, ["adapters.said.removed", { name: alias }]);
  }

  async function rollBack(digest) {
    const params = { name, digest: shortDigest(digest) };
    if (!(await confirmed({ title: "adapters.rollBackTitle", more: "adapters.rollBackMore", action: "adapters.rollBack", params }))) return;
    await change({ rollback: digest }, ["adapters.said.rolledBack", params]);
    card.show(`${record.id}@${record.digest}`);
  }

  async function remove() {
    if (!(await confirmed({ title: "adapters.deleteTitle", more: "adapters.deleteMore", action: "adapters.delete", params: { name }, look: "danger" }))) return;
    let isGone = false;
    await done(async () => {
      await api.json(path, { method: "DELETE" });
      isGone = true;
    }, ["adapters.said.removed", { name }]);
    if (isGone) dialog.close();
  }
}
