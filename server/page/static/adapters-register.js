// Registering an adapter: picks its files, sends them with progress, and shows what the server says.

import { OPTIONAL, REQUIRED, droppedFiles, nameInside, sorted } from "./adapters-files.js";
import { percent, sizeOf, verificationChip } from "./adapters-words.js";
import { openDialog } from "./dialog.js";
import { button, h } from "./dom.js";
import { say } from "./i18n.js";

const NAME = "[A-Za-z0-9][A-Za-z0-9._\\-]{0,62}";

/** `dropped`: promise of files, see adapters-files.js, or null. `onDone()` after a name has moved, `onOpen(name)` shows it. */
export function openRegister({ api, chatWith }, dropped, { onDone, onOpen }) {
  let files = new Map();
  let sending = null; // AbortController of the upload that runs
  const picker = h("input", { type: "file", multiple: true, class: "hidden-visually", id: "files", on: { change: pick } });
  const zone = h(
    "label",
    { class: "drop-zone", for: "files", on: { dragover: allow, dragleave: leave, drop } },
    say(h("strong"), "adapters.drop"),
    say(h("span", { class: "muted small" }), "adapters.dropMore"),
  );
  const found = h("ul", { class: "found-files" });
  const name = h("input", { type: "text", name: "name", required: true, maxlength: 63, pattern: NAME, autocomplete: "off", spellcheck: "false", on: { input: check } });
  const submit = say(h("button", { class: "primary", type: "submit" }), "adapters.send");
  const cancel = say(button({ class: "quiet", hidden: true, on: { click: () => sending?.abort() } }), "adapters.stopSending");
  const bar = h("progress", { max: 1, value: 0 });
  const phase = h("p", { class: "muted small", role: "status" });
  const progress = h("div", { hidden: true, class: "sending" }, bar, phase);
  const result = h("div", { class: "sent", hidden: true, role: "status" });
  say(bar, "adapters.progress", {}, "label");
  const form = h(
    "form",
    { class: "register-form", on: { submit: send } },
    picker,
    zone,
    found,
    h("label", { class: "field" }, say(h("span"), "adapters.name"), name, say(h("span", { class: "hint" }), "adapters.nameHint")),
    progress,
    result,
    h("div", { class: "row" }, submit, cancel),
  );
  const dialog = openDialog({ title: "adapters.register", body: [form], onClose: () => sending?.abort() });
  showFiles([]);
  dropped?.then(take);

  function pick() {
    take([...picker.files].map((file) => [file.name, file]));
    picker.value = "";
  }

  async function drop(event) {
    leave(event);
    take(await droppedFiles(event.dataTransfer));
  }

  function allow(event) {
    event.preventDefault();
    zone.classList.add("over");
  }

  function leave(event) {
    event.preventDefault();
    zone.classList.remove("over");
  }

  async function take(list) {
    const { files: more, others } = await sorted(list);
    files = new Map([...files, ...more]);
    result.hidden = true;
    showFiles(others);
    if (name.value === "") name.value = (await nameInside(files)) ?? "";
    check();
  }

  function showFiles(others) {
    found.replaceChildren(
      ...[...REQUIRED, ...OPTIONAL].map(fileItem),
      ...others.map((other) => h("li", { class: "other" }, h("code", {}, other), say(h("span", { class: "small" }), "adapters.notAsked"))),
    );
    check();
  }

  function fileItem(file) {
    const blob = files.get(file);
    const state = blob ? "there" : REQUIRED.includes(file) ? "missing" : "optional";
    const said = blob ? h("span", { class: "small" }, sizeOf(blob.size)) : say(h("span", { class: "small" }), `adapters.file.${state}`);
    return h("li", { class: state }, h("code", {}, file), said);
  }

  function check() {
    submit.disabled = sending !== null || !REQUIRED.every((file) => files.has(file)) || !name.checkValidity();
  }

  async function send(event) {
    event.preventDefault();
    const body = new FormData();
    body.append("name", name.value);
    for (const [file, blob] of files) body.append(file, blob, file);
    begin();
    try {
      showDone(await api.upload("v1/adapters", body, { onProgress: showProgress, signal: sending.signal }));
    } catch (error) {
      if (error.name !== "AbortError") showRefusal(error);
    }
    end();
  }

  function begin() {
    sending = new AbortController();
    result.hidden = true;
    progress.hidden = cancel.hidden = false;
    showProgress(0);
    check();
  }

  function end() {
    sending = null;
    progress.hidden = cancel.hidden = true;
    check();
  }

  function showProgress(share) {
    if (share < 1) bar.value = share;
    else bar.removeAttribute("value"); // the server works, nobody knows how long
    say(phase, share < 1 ? "adapters.sending" : "adapters.replaying", { share: percent(share) });
  }

  function showRefusal({ message, code, param }) {
    const where = [code, param].filter(Boolean).join(" · ");
    result.className = "sent box danger";
    result.replaceChildren(say(h("strong"), "adapters.refused"), h("p", {}, message), ...(where ? [h("code", { class: "small" }, where)] : []));
    result.hidden = false;
  }

  function showDone(record) {
    const { id, verification } = record;
    result.className = "sent box good";
    result.replaceChildren(
      h("div", { class: "row" }, say(h("strong"), "adapters.registered", { name: id }), verificationChip(verification)),
      ...(verification.detail ? [h("p", { class: "small" }, verification.detail)] : []),
      h("div", { class: "row" }, say(button({ class: "primary small", on: { click: () => leaveTo(chatWith, id) } }), "adapters.chat"), say(button({ class: "small", on: { click: () => leaveTo(onOpen, id) } }), "adapters.open")),
    );
    result.hidden = false;
    files = new Map();
    showFiles([]);
    onDone();
    result.querySelector("button").focus();
  }

  function leaveTo(where, id) {
    dialog.close();
    where(id);
  }
}
