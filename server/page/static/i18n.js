// Says things in the user's language, and says them anew when that changes. The tables are in text/.

import { createStorage } from "./storage.js";
import en from "./text/en.js";
import zh from "./text/zh.js";
import adaptersEn from "./text/adapters-en.js";
import adaptersZh from "./text/adapters-zh.js";

const TABLES = { en: { ...en, ...adaptersEn }, zh: { ...zh, ...adaptersZh } };

const TARGETS = { i18n: "text", i18nLabel: "aria-label", i18nTitle: "title", i18nPlaceholder: "placeholder" };
const STORED = "hotprompt.language";

const storage = createStorage("local");

let language = chosenLanguage();

/** "en" or "zh". */
export function currentLanguage() {
  return language;
}

/** The text of a key, with `{name}` replaced by the parameter of that name. */
export function t(key, params = {}) {
  const text = TABLES[language][key];
  if (text === undefined) throw new Error(`no text for ${key}`);
  return text.replace(/\{(\w+)\}/g, (_, name) => String(params[name]));
}

/** Give a node the text of a key, now and after a change of language; `target`: text, label, title, placeholder. */
export function say(node, key, params = {}, target = "text") {
  const name = target === "text" ? "i18n" : `i18n${target[0].toUpperCase()}${target.slice(1)}`;
  node.dataset[name] = key;
  node.dataset[`${name}Params`] = JSON.stringify(params);
  write(node, name);
  return node;
}

/** The same for a button without words: its accessible name and its tooltip. */
export function label(node, key, params = {}) {
  return say(say(node, key, params, "label"), key, params, "title");
}

/** A date and time, or a number, as the language writes it. */
export function formatTime(seconds) {
  return new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" }).format(seconds * 1000);
}

export function formatNumber(value, digits = 0) {
  return new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);
}

/** Go on in this language; a `languagechange` event on the document follows. */
export function setLanguage(next) {
  language = next;
  storage.set(STORED, next);
  translate();
  document.dispatchEvent(new Event("languagechange"));
}

/** Write every marked text of the document anew. */
export function translate() {
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
  for (const name of Object.keys(TARGETS)) {
    const attribute = `data-${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    for (const node of document.querySelectorAll(`[${attribute}]`)) write(node, name);
  }
}

function chosenLanguage() {
  const stored = storage.get(STORED);
  if (stored !== null && Object.hasOwn(TABLES, stored)) return stored;
  return navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
}

function write(node, name) {
  const text = t(node.dataset[name], JSON.parse(node.dataset[`${name}Params`] ?? "{}"));
  if (TARGETS[name] === "text") node.textContent = text;
  else node.setAttribute(TARGETS[name], text);
}
