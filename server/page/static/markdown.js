// Shows a model's answer, which is Markdown and may be hostile, while it grows: block by block, each sanitised.

import { copyButton } from "./copy.js";
import { h } from "./dom.js";
import DOMPurify from "./vendor/dompurify/purify.es.js";
import { Marked } from "./vendor/marked/marked.esm.js";

const POLICY = {
  ALLOWED_TAGS: [
    ..."a b blockquote br code del em h1 h2 h3 h4 h5 h6 hr i li ol p pre s strong table tbody td th thead tr ul".split(" "),
  ],
  ALLOWED_ATTR: ["href", "align", "start"],
  ADD_URI_SAFE_ATTR: ["align", "start"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    html: ({ text, block }) => (block ? `<p>${escaped(text)}</p>` : escaped(text)), // HTML is shown, never followed
    image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || href)}</a>`, // nothing is loaded
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  },
});

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName !== "A" || !node.hasAttribute("href")) return;
  node.setAttribute("rel", "noopener noreferrer nofollow");
  node.setAttribute("target", "_blank");
});

/** Keeps a node showing a text: `update(text)` renders what changed since the last call. */
export function createMarkdown(node) {
  let blocks = []; // { raw, nodes } of what is shown

  function update(text) {
    const tokens = lexed(text);
    const kept = blocks.findIndex((block, index) => block.raw !== tokens[index]?.raw);
    const first = kept === -1 ? blocks.length : kept;
    for (const block of blocks.splice(first)) for (const shown of block.nodes) shown.remove();
    for (const token of tokens.slice(first)) {
      const nodes = rendered(token);
      node.append(...nodes);
      blocks.push({ raw: token.raw, nodes });
    }
  }

  return { update };
}

function lexed(text) {
  try {
    return marked.lexer(text);
  } catch {
    return [{ raw: text }]; // nested too deep to be read
  }
}

function rendered(token) {
  try {
    const fragment = DOMPurify.sanitize(marked.parser([token]), POLICY);
    for (const pre of fragment.querySelectorAll("pre")) frame(pre);
    for (const table of fragment.querySelectorAll("table")) scroll(table);
    return [...fragment.childNodes];
  } catch {
    return [h("p", {}, token.raw)];
  }
}

function frame(pre) {
  const framed = h("div", { class: "code-block" });
  pre.replaceWith(framed);
  pre.setAttribute("tabindex", "0"); // may scroll, so the keyboard reaches it
  framed.append(pre, copyButton(() => pre.textContent, { class: "small copy" }));
}

function scroll(table) {
  const framed = h("div", { class: "table-block" });
  table.replaceWith(framed);
  framed.append(table);
}

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

function escaped(text) {
  return text.replace(/[&<>"']/g, (character) => ENTITIES[character]);
}
