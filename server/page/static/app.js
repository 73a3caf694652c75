// The shell: makes the parts that the views share, shows the view that the address names, wires the bar's buttons.

import { createApi } from "./api.js";
import { currentLanguage, setLanguage, translate } from "./i18n.js";
import { createKeys } from "./key.js";
import * as chat from "./chat.js";
import { installTheme } from "./theme.js";

const VIEWS = {
  chat: async () => chat,
  adapters: () => import("./adapters.js"), // read when it is first looked at
};

/** What a view gets beside its section; `chatWith(model)` shows the chat with this model. */
function createApp() {
  const keys = createKeys();
  return { keys, api: createApi(keys), chatWith: async (model) => (await shown("chat")).choose(model) };
}

const app = createApp();
const mounted = new Map(); // by name: promise of what the view's mount() gave back
let current = null;

/** Show a view; resolves with what its mount() gave back. */
async function shown(name) {
  const link = document.querySelector(`.tabs [data-view="${name}"]`);
  if (location.hash.split("/")[1] !== name) history.replaceState(null, "", link.hash);
  const section = document.getElementById(name);
  if (!mounted.has(name))
    mounted.set(
      name,
      VIEWS[name]().then((view) => view.mount(section, app)),
    );
  const before = current;
  current = name;
  document.querySelector(".tabs [aria-current]")?.removeAttribute("aria-current");
  link.setAttribute("aria-current", "page");
  for (const view of document.querySelectorAll(".view")) view.hidden = view !== section;
  if (before !== null && before !== name) (await mounted.get(before)).hidden?.();
  const view = await mounted.get(name);
  view.shown?.();
  return view;
}

function showNamed() {
  const name = location.hash.split("/")[1];
  return shown(name in VIEWS ? name : "chat");
}

document.getElementById("key").addEventListener("click", () => app.keys.ask(null));
document.getElementById("language").addEventListener("click", () => {
  setLanguage(currentLanguage() === "en" ? "zh" : "en");
});
window.addEventListener("hashchange", showNamed);
translate();
installTheme(document.getElementById("theme"));
showNamed();
