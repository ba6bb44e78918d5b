// Making elements and words. Whatever the API says goes in as text, never as markup: names of hosts
// and packages are other people's.

const SVG = "http://www.w3.org/2000/svg";

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((it) => it !== null && it !== undefined && it !== false));
  return node;
}

/** An HTML element with attributes and children: elements or text. */
export const el = (name, attributes, ...children) => build(document.createElement(name), attributes, children);

/** An SVG element. */
export const svg = (name, attributes, ...children) => build(document.createElementNS(SVG, name), attributes, children);

export const byId = (id) => document.getElementById(id);

/** Replaces what an element holds; what was open stays open, and what had the focus keeps it. */
export function put(parent, ...children) {
  const open = new Set([...parent.querySelectorAll("details[open]")].map((it) => it.dataset.key));
  const active = parent.contains(document.activeElement) ? document.activeElement : null;
  const keeper = active?.closest("[data-key]");
  const [focused, within] = [keeper?.dataset.key, keeper !== active];
  const scrolled = [...parent.querySelectorAll(".scroll")].map((it) => it.scrollLeft);
  parent.replaceChildren(...children.flat(Infinity).filter(Boolean));
  for (const it of parent.querySelectorAll("details")) it.open = open.has(it.dataset.key);
  parent.querySelectorAll(".scroll").forEach((it, index) => { it.scrollLeft = scrolled[index] ?? 0; });
  if (focused === undefined) return;
  const again = [...parent.querySelectorAll("[data-key]")].find((it) => it.dataset.key === focused);
  (within ? again?.querySelector("summary") : again)?.focus({ preventScroll: true });
}

/** Sets the text of an element only where it differs, so that a screen reader is not told again. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** The JSON at a path of the gateway. */
export async function ask(path, signal) {
  const answer = await fetch(path, { signal, headers: { accept: "application/json" } });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${(await answer.text()).trim()}`);
  return answer.json();
}

const MINUS = "\u2212";
const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

/** A figure of bytes, such as 3.2 GB. */
export function bytes(figure) {
  let value = Math.abs(figure);
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : 1;
  return `${figure < 0 ? MINUS : ""}${value.toFixed(digits)}\u00a0${UNITS[unit]}`;
}

/** A share in percent; a dash where there is nothing to share. */
export function percent(part, whole) {
  if (!whole) return "\u2013";
  const share = (part / whole) * 100;
  // 100 % is said of all, and of nothing less.
  const rounded = part < whole && share > 99.9 ? 99.9 : share;
  const text = Math.abs(rounded).toFixed(Math.abs(rounded) < 10 || rounded > 99 ? 1 : 0).replace(/\.0$/, "");
  return `${rounded < 0 && text !== "0" ? MINUS : ""}${text}\u00a0%`;
}

/** A time span, such as 3 h 12 min. */
export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s}\u00a0s`;
  if (s < 3600) return `${Math.floor(s / 60)}\u00a0min`;
  if (s < 86400) return `${Math.floor(s / 3600)}\u00a0h ${Math.floor((s % 3600) / 60)}\u00a0min`;
  return `${Math.floor(s / 86400)}\u00a0d ${Math.floor((s % 86400) / 3600)}\u00a0h`;
}

/** A number with its noun. */
export const count = (number, noun, nouns = `${noun}s`) => `${number} ${number === 1 ? noun : nouns}`;

/** The end of a node's id, as logs show it. */
export const short = (id) => id.slice(-6);

/** A time in words of the reader's region. */
export function time(iso) {
  const at = new Date(iso);
  return Number.isNaN(at.getTime()) ? iso : at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

/**
 * A table that scrolls within itself. Columns are [heading, class]; the first cell of a row is its
 * heading.
 */
export function table(id, caption, columns, rows) {
  const head = columns.map(([text, kind]) => el("th", { scope: "col", class: kind }, text));
  const cell = (value, index) => {
    const [content, kind] = Array.isArray(value) ? value : [value];
    const name = index === 0 ? "th" : "td";
    const classes = [columns[index][1], kind].filter(Boolean).join(" ");
    return el(name, { scope: index === 0 ? "row" : undefined, class: classes || undefined }, content ?? "");
  };
  const body = rows.map((row) => el("tr", null, row.map(cell)));
  return el("div", { class: "scroll", role: "region", "aria-labelledby": id, tabindex: "0", "data-key": id },
    el("table", null, el("caption", { id }, caption), el("thead", null, el("tr", null, head)), el("tbody", null, body)));
}
