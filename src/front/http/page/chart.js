// Charts as SVG, drawn from attributes and classes alone: the page's policy allows no style in markup.

import { bytes, el, percent, svg } from "./dom.js";

const HEIGHT = 190;
const [LEFT, RIGHT, TOP, BOTTOM] = [58, 6, 10, 22];
const MOST_BARS = 90;

/** A round number, at least this one, in 1, 2 or 5 of a power of ten. */
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].map((it) => it * power).find((it) => it >= value) ?? value;
}

/** Neighbouring bars put together, so that there are not too many to see. */
export function merge(bars) {
  const size = Math.ceil(bars.length / MOST_BARS);
  if (size <= 1) return bars;
  const merged = [];
  for (let at = 0; at < bars.length; at += size) {
    const group = bars.slice(at, at + size);
    const sum = (name) => group.reduce((total, bar) => total + bar[name], 0);
    const label = `${group[0].label} \u2013 ${group[group.length - 1].label}`;
    merged.push({ label, short: group[0].short, delivered: sum("delivered"), wan: sum("wan") });
  }
  return merged;
}

/** What clients received and what crossed the WAN, over time. */
export function plot(bars, width, label) {
  const most = ceiling(Math.max(...bars.map((bar) => Math.max(bar.delivered, bar.wan)), 1));
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / most);
  const base = y(0);
  const step = (width - LEFT - RIGHT) / Math.max(bars.length, 1);
  const thick = Math.min(Math.max(step * 0.72, 1), 56);
  const lines = [0, 0.5, 1].map((part) => [
    svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(most * part), y2: y(most * part) }),
    svg("text", { x: LEFT - 6, y: y(most * part) + 4, "text-anchor": "end" }, bytes(most * part)),
  ]);
  const bar = (it, index) => {
    const middle = LEFT + step * (index + 0.5);
    const rect = (kind, value, part) => svg("rect", {
      class: kind, x: middle - (thick * part) / 2, width: thick * part, y: y(value), height: Math.max(base - y(value), value ? 1 : 0), rx: thick > 6 ? 2 : 0,
    });
    const words = `${it.label}: clients received ${bytes(it.delivered)}, ${bytes(it.wan)} crossed the WAN`;
    return svg("g", null, svg("title", null, words), rect("s-all", it.delivered, 1), rect("s-wan", it.wan, 0.5));
  };
  return svg("svg", { class: "plot", viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": label },
    lines, bars.map(bar), names(bars, width, step));
}

/** As many names below the bars as have room. */
function names(bars, width, step) {
  const every = Math.ceil(64 / step);
  const texts = bars.map((bar, index) => {
    if ((bars.length - 1 - index) % every !== 0) return null;
    const x = LEFT + step * (index + 0.5);
    // The last one must not be cut off.
    const anchor = x > width - RIGHT - 24 ? "end" : "middle";
    return svg("text", { x: anchor === "end" ? width - RIGHT : x, y: HEIGHT - 6, "text-anchor": anchor }, bar.short);
  });
  return texts.filter(Boolean);
}

/** One bar, made of parts: [class, name, value]. */
export function stack(parts, label) {
  const whole = parts.reduce((sum, [, , value]) => sum + value, 0);
  let start = 0;
  const rects = parts.map(([kind, , value]) => {
    const width = whole ? (value / whole) * 100 : 0;
    const rect = svg("rect", { class: kind, x: start, y: 0, width, height: 10 });
    start += width;
    return rect;
  });
  return svg("svg", { class: "stack", viewBox: "0 0 100 10", preserveAspectRatio: "none", role: "img", "aria-label": label }, rects);
}

/** What the colours mean: [class, name, value]; the value may be left out. */
export function legend(parts) {
  const whole = parts.reduce((sum, [, , value]) => sum + (value ?? 0), 0);
  return el("ul", { class: "legend" }, parts.map(([kind, name, value]) => el("li", null,
    svg("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" }, svg("rect", { class: kind, width: 10, height: 10, rx: 2 })),
    el("span", null, value === undefined ? name : `${name}: ${bytes(value)} (${percent(value, whole)})`))));
}
