// Rows as elements.

import { parse, type Span, type Style } from "./ansi";
import { count, offset } from "./format";
import type { GapRow, LineRow } from "./rows";

/** renderLine returns the element of a line and the style that holds after it. */
export function renderLine(row: LineRow, style: Style): { element: HTMLElement; style: Style } {
  const parsed = parse(row.text, style);
  const element = document.createElement("div");
  element.className = "row";
  element.id = `L${row.n}`;
  const anchor = document.createElement("a");
  anchor.href = `#L${row.n}`;
  anchor.tabIndex = -1;
  // Number and time are drawn by the style sheet, so that they are not copied with the text.
  anchor.dataset.n = String(row.n).padStart(7);
  anchor.dataset.t = offset(row.t).padStart(10);
  anchor.setAttribute("aria-label", `Line ${row.n}`);
  const text = document.createElement("span");
  text.className = "text";
  for (const span of parsed.spans) text.append(renderSpan(span));
  if (row.cut > 0) {
    const cut = document.createElement("span");
    cut.className = "cut";
    cut.textContent = ` … ${row.open ? "at least " : ""}${count(row.cut)} more characters in the raw stream`;
    text.append(cut);
  }
  element.append(anchor, text);
  return { element, style: parsed.style };
}

export function renderGap(row: GapRow): HTMLElement {
  const element = document.createElement("div");
  element.className = "gap";
  const n = row.last - row.first + 1;
  element.textContent =
    n === 1
      ? `One piece of the output was lost here (entry ${count(row.first)}).`
      : `${count(n)} pieces of the output were lost here (entries ${count(row.first)} to ${count(row.last)}).`;
  return element;
}

function renderSpan({ text, style }: Span): Node {
  const content = linked(text);
  if (Object.keys(style).length === 0) return content;
  const element = document.createElement("span");
  const { fg, bg } = style.inverse ? { fg: style.bg ?? "bg", bg: style.fg ?? "fg" } : style;
  const classes: string[] = [];
  if (typeof fg === "number" || fg === "bg") classes.push(`fg-${fg}`);
  else if (fg) element.style.color = fg;
  if (typeof bg === "number" || bg === "fg") classes.push(`bg-${bg}`);
  else if (bg) element.style.backgroundColor = bg;
  for (const name of ["bold", "dim", "italic", "underline", "strike"] as const) if (style[name]) classes.push(name);
  element.className = classes.join(" ");
  element.append(content);
  return element;
}

const address = /\bhttps?:\/\/[\w-]+(?:\.[\w-]+)*\.?(?::\d+)?(?:[/?#][^\s<>"'`\u2400-\u2421]*)?/g;

/** linked makes web addresses in the text links. */
function linked(text: string): Node {
  if (!text.includes("://")) return document.createTextNode(text);
  const nodes = document.createDocumentFragment();
  let at = 0;
  for (const match of text.matchAll(address)) {
    const url = trimmed(match[0]);
    nodes.append(text.slice(at, match.index));
    at = match.index + url.length;
    const link = document.createElement("a");
    link.className = "link";
    link.href = url;
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
    link.textContent = url;
    nodes.append(link);
  }
  nodes.append(text.slice(at));
  return nodes;
}

/** trimmed leaves out what ends a sentence rather than an address, and a bracket that was opened before it. */
function trimmed(url: string): string {
  for (;;) {
    const last = url.at(-1)!;
    const open = { ")": "(", "]": "[", "}": "{" }[last];
    const unbalanced = open !== undefined && url.split(last).length > url.split(open).length;
    if (!unbalanced && !".,:;!".includes(last)) return url;
    url = url.slice(0, -1);
  }
}
