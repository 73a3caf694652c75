// The adapters view: reads the list, takes files that are dropped on it, and opens what its buttons ask for.

import { showAdapter } from "./adapters-detail.js";
import { droppedFiles } from "./adapters-files.js";
import { createList } from "./adapters-list.js";
import { openRegister } from "./adapters-register.js";
import { button, h } from "./dom.js";
import { say } from "./i18n.js";
import { icon } from "./icons.js";

/**
 * Fill the section, when it is shown for the first time. `app`: see app.js. Gives back what to call when the view is
 * shown (again).
 */
export function mount(section, app) {
  const list = createList({ onOpen: open, onChat: app.chatWith });
  const problem = h("div", { class: "box danger", role: "alert", hidden: true });
  const body = h("div", { class: "adapters-body" });
  let isReading = false;

  body.append(
    h(
      "header",
      { class: "adapters-head" },
      say(h("h1"), "shell.adapters"),
      list.count,
      h("span", { class: "grow" }),
      say(button({ class: "quiet", on: { click: read } }), "adapters.refresh"),
      h("button", { type: "button", class: "primary", id: "register", on: { click: () => register() } }, icon("plus"), say(h("span"), "adapters.register")),
    ),
    problem,
    list.node,
  );
  section.append(body, h("div", { class: "drop-hint", "aria-hidden": true }, say(h("p"), "adapters.dropHere")));
  takeDrops(section, register);

  async function read() {
    if (isReading) return;
    isReading = true;
    body.setAttribute("aria-busy", "true");
    try {
      const { data, damaged } = await app.api.json("v1/adapters");
      problem.hidden = true;
      list.fill(data, damaged);
    } catch (error) {
      problem.hidden = false;
      problem.textContent = error.message;
    } finally {
      isReading = false;
      body.removeAttribute("aria-busy");
    }
  }

  function open(name) {
    showAdapter(app, name, { onChange: read });
  }

  function register(dropped = null) {
    openRegister(app, dropped, { onDone: read, onOpen: open });
  }

  return { shown: read };
}

/** Let files be dropped anywhere in a node. */
function takeDrops(node, onDrop) {
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  node.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    node.classList.add("dropping");
  });
  node.addEventListener("dragleave", (event) => {
    if (!node.contains(event.relatedTarget)) node.classList.remove("dropping");
  });
  node.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    node.classList.remove("dropping");
    onDrop(droppedFiles(event.dataTransfer));
  });
}
