/* markdown.js: shows an answer as Markdown while it is generated.
 * In:  the whole text so far, again and again.
 * Out: one element per block (paragraph, list, code, …). A finished block is not touched again, and a block
 *      that grows is changed in place: nothing flickers, and a selection stays.
 * marked reads the Markdown; DOMPurify lets only the tags and attributes through that are listed here. */
import { Marked } from "./lib/marked/marked.esm.js";
import "./lib/dompurify/purify.min.js"; // defines the global DOMPurify

const escaped = (text) => text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);

const marked = new Marked({
  gfm: true,
  breaks: true, // a line of a poem is a line
  renderer: {
    html: ({ text, block }) => (block ? `<p>${escaped(text)}</p>` : escaped(text)), // tags are shown, not used
    image: ({ text }) => escaped(text), // the page loads nothing that an answer names
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    heading({ tokens, depth }) {
      const level = Math.min(depth + 2, 6); // below the headings of the page
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
  },
});

const ALLOWED = {
  ALLOWED_TAGS: "p br strong em del code pre ul ol li blockquote h3 h4 h5 h6 hr a table thead tbody tr th td".split(" "),
  ALLOWED_ATTR: ["href", "start", "align", "class"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  RETURN_DOM_FRAGMENT: true,
};

/** A block as an element. */
function render(token, links) {
  const block = document.createElement("div");
  block.className = "block";
  block.append(DOMPurify.sanitize(marked.parser(Object.assign([token], { links })), ALLOWED));
  for (const link of block.querySelectorAll("a[href]")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer";
  }
  for (const table of block.querySelectorAll("table")) wrap(table, "scroll").tabIndex = 0; // the keyboard scrolls it
  for (const pre of block.querySelectorAll("pre")) {
    addHead(wrap(pre, "code"), pre);
    pre.tabIndex = 0;
  }
  return block;
}

function wrap(element, className) {
  const around = document.createElement("div");
  around.className = className;
  element.replaceWith(around);
  around.append(element);
  return around;
}

/** The language of a piece of code, and the button that copies it. */
function addHead(around, pre) {
  const head = document.createElement("div");
  head.className = "code-head";
  const language = document.createElement("span");
  language.textContent = /^language-(\S+)/.exec(pre.querySelector("code")?.className ?? "")?.[1] ?? "code";
  const copy = document.createElement("button");
  copy.type = "button";
  copy.className = "copy";
  copy.textContent = "Copy";
  head.append(language, copy);
  around.prepend(head);
}

/** Make the content of `old` that of `fresh` with as few changes as possible. */
function change(old, fresh) {
  const [olds, news] = [[...old.childNodes], [...fresh.childNodes]];
  news.forEach((node, i) => {
    const before = olds[i];
    if (!before) old.append(node);
    else if (before.nodeName !== node.nodeName || before.className !== node.className || before.href !== node.href) before.replaceWith(node);
    else if (node.nodeType !== Node.TEXT_NODE) change(before, node);
    else if (node.data.startsWith(before.data)) before.appendData(node.data.slice(before.data.length));
    else before.data = node.data;
  });
  for (const node of olds.slice(news.length)) node.remove();
}

/* A last line of marks alone may become a list, a heading, a line or a table: it waits for what follows. */
const LOOSE_LINE = /(^|\n)[ \t>]*(?:[-=*+#`~|_]+|\d{1,3}[.)]?)[ \t]*$/;

/** The text so far in a form that what follows changes as little as possible. */
function settled(text) {
  text = text.replace(LOOSE_LINE, "$1");
  const isInCode = (text.match(/^ {0,3}(```|~~~)/gm)?.length ?? 0) % 2;
  if (isInCode) return text;
  text = text.replace(/[*`]+$/, "");
  const line = text.slice(text.lastIndexOf("\n") + 1);
  for (const mark of ["`", "**"]) if (line.split(mark).length % 2 === 0) text = text.trimEnd() + mark; // close what is open
  return text;
}

export class Markdown {
  #sources = []; // of the blocks in `into`

  constructor(into) {
    this.into = into;
  }

  /** Show the text. Returns the elements of the blocks that are finished. */
  update(text, isWhole) {
    const tokens = marked.lexer(isWhole ? text : settled(text));
    const blocks = tokens.filter(({ type }) => type !== "space" && type !== "def");
    const elements = this.into.children;
    blocks.forEach((token, i) => {
      if (this.#sources[i] === token.raw) return;
      const fresh = render(token, tokens.links);
      if (elements[i]) change(elements[i], fresh);
      else this.into.append(fresh);
    });
    while (elements.length > blocks.length) elements[blocks.length].remove();
    this.#sources = blocks.map(({ raw }) => raw);
    return [...elements].slice(0, isWhole ? undefined : -1);
  }
}

/** Copies the code beside a button that was clicked. Without a clipboard (a page of http) it is selected. */
export async function copyCode(button) {
  const code = button.closest(".code").querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent.replace(/\n$/, ""));
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(code);
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = "Copy"), 2000);
}
