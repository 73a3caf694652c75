// Shows a model's answer, which is Markdown and may be hostile, while it grows: block by block, each sanitised.

import { copyButton } from "./copy.js";
import { h } from "./dom.js";
import DOMPurify from "./vendor/dompurify/purify.es.js";
import { Lexer, Marked } from "./vendor/marked/marked.esm.js";

const POLICY = {
  ALLOWED_TAGS: [
    ..."a b blockquote br code del em h1 h2 h3 h4 h5 h6 hr i li ol p pre s strong table tbody td th thead tr ul".split(
      " ",
    ),
  ],
  ALLOWED_ATTR: ["href", "align", "start"],
  ADD_URI_SAFE_ATTR: ["align", "start"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

const MAX_INLINE = 2000;
/** Once an update has taken so many milliseconds, the next one waits for several times as long. */
const PATIENCE = 4;

/** Reading emphasis and links takes quadratic time: a longer run of text, which few people write, is shown as it is. */
class BoundedLexer extends Lexer {
  inline(source, tokens = []) {
    if (source.length <= MAX_INLINE) return super.inline(source, tokens);
    tokens.push({ type: "text", raw: source, text: source });
    return tokens;
  }
}

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

/**
 * Keeps a node showing a text that grows: `update(text)` renders, with the next frame, what changed since the last one.
 */
export function createMarkdown(node) {
  const blocks = []; // { raw, nodes } of what is shown
  let wanted = "";
  let isScheduled = false;

  function update(text) {
    wanted = text;
    if (!isScheduled) schedule(0);
  }

  function schedule(milliseconds) {
    isScheduled = true;
    setTimeout(() => requestAnimationFrame(write), milliseconds);
  }

  function write() {
    const begin = performance.now();
    const text = wanted;
    show(text);
    const cost = performance.now() - begin;
    setTimeout(() => {
      isScheduled = false;
      if (wanted !== text) schedule(0);
    }, cost * PATIENCE);
  }

  function show(text) {
    const tokens = lexed(text);
    const changed = blocks.findIndex((block, index) => block.raw !== tokens[index]?.raw);
    const first = changed === -1 ? blocks.length : changed;
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
    return new BoundedLexer(marked.defaults).lex(text);
  } catch {
    return [{ type: "text", raw: text, text }]; // nested too deep to be read
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
  framed.append(
    pre,
    copyButton(() => pre.textContent, { class: "small copy" }),
  );
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
