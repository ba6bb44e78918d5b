// The ledger: what was saved, against two denominators, over time, by package and by reason.

import { ask, byId, bytes, el, percent, put, short, table, time } from "./dom.js";
import { legend, merge, plot, stack } from "./chart.js";

const MOST_ROWS = 12;
const REASONS = {
  cold: "nobody on the site held it",
  upgrade: "a new version: what had changed",
  preload: "brought in before it was asked for",
  takeover: "another lead was lost while it pulled",
  hash_failure: "what came did not match its hash",
  no_peer: "members hold it, none was reached",
  peer_busy: "members hold it, and had no slot free",
  policy: "this node is set not to wait",
  revalidate: "checks whether the catalog is current",
  manifest: "chunk lists",
  partition: "another lead, out of reach, pulled it too",
  probe: "measured how busy the link is",
};

const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;
let drawn = null; // what the chart shows, to draw it again at another width

/** Asks the ledger, and shows it. */
export async function load(signal) {
  const [scope, since] = [chosen("scope"), chosen("since")];
  const unit = since === "24h" ? "hour" : "day";
  const path = (by) => `/api/v1/savings?scope=${scope}&by=${by}&max_age=5${since === "all" ? "" : `&since=${since}`}`;
  const overTime = await ask(`${path(unit)}&also=package,reason`, signal);
  const rowsBy = (by) => overTime.also.find((it) => it.by === by)?.rows ?? [];
  put(byId("savings-notes"), notes(overTime));
  put(byId("tiles"), tiles(overTime));
  put(byId("sources"), sources(overTime.totals));
  drawn = { bars: merge(bars(overTime, unit, since)), unit, totals: overTime.totals };
  draw();
  put(byId("by-package"), packages(rowsBy("package"), path("package")));
  put(byId("by-reason"), reasons(rowsBy("reason")));
}

/** The chart, as wide as there is room. */
export function draw() {
  if (!drawn) return;
  const figure = byId("over-time");
  const { bars: list, unit, totals } = drawn;
  const label = `Bars over time: clients received ${bytes(totals.delivered)} in all, ${bytes(totals.wan_wire)} crossed the WAN. The figures are in the table below.`;
  const rows = list.map((bar) => [bar.label, bytes(bar.delivered), bytes(bar.wan), saved(bar.delivered - bar.wan, bar.delivered)]).reverse();
  const columns = [[unit === "hour" ? "Hour" : "Day (UTC)"], ["Received", "n"], ["Crossed the WAN", "n"], ["Saved", "n"]];
  put(figure, el("h3", { id: "over-time-title" }, `Over time, by ${unit}`),
    legend([["s-all", "clients received"], ["s-wan", "crossed the WAN"]]),
    plot(list, Math.max(figure.clientWidth - 32, 240), label),
    el("details", { "data-key": "over-time" }, el("summary", null, "The figures as a table"),
      table("over-time-table", "Over time", columns, rows)));
}

const saved = (part, whole) => [percent(part, whole), part < 0 ? "neg" : ""];

function tiles({ totals, saved: it }) {
  const tile = (title, part, whole, words) => el("div", { class: "tile" }, el("h3", null, title),
    el("p", { class: `big ${part < 0 ? "bad" : part > 0 ? "good" : ""}` }, percent(part, whole)),
    el("p", { class: "muted small" }, whole ? words(part, whole) : "Nothing yet in this period."));
  const received = (part, whole) => part < 0
    ? `Clients received ${bytes(whole)}, and ${bytes(-part)} more than that crossed the WAN.`
    : `Clients received ${bytes(whole)}; ${bytes(part)} of it did not cross the WAN.`;
  const direct = (part, whole) => part < 0
    ? `Each machine fetching for itself would have taken ${bytes(whole)}; ${bytes(-part)} more than that crossed the WAN.`
    : `Each machine fetching for itself would have taken ${bytes(whole)}; ${bytes(part)} of it stayed off the WAN.`;
  return [
    tile("Saved, of what clients received", it.of_delivered, totals.delivered, received),
    tile("Saved, of what would have crossed without Branchline", it.of_direct, totals.direct, direct),
    el("div", { class: "tile" }, el("h3", null, "Crossed the WAN"),
      el("p", { class: "big" }, bytes(totals.wan_wire)),
      el("p", { class: "muted small" }, totals.wan_duplicate
        ? `On the wire, all counted in; ${bytes(totals.wan_duplicate)} of content came twice.`
        : "On the wire, all counted in; nothing came twice.")),
  ];
}

function sources(totals) {
  const parts = [
    ["s-wan", "over the WAN", totals.wan],
    ["s-peer", "from neighbours", totals.peer],
    ["s-local", "held before", totals.local],
  ];
  const label = parts.map(([, name, value]) => `${name} ${bytes(value)}`).join(", ");
  const media = totals.preloaded_media || 0;
  const before = totals.preloaded_wan + totals.preloaded_peer + media;
  return [
    el("h3", null, `What clients received: ${bytes(totals.delivered)}`),
    stack(parts, `Where it came from: ${label}`),
    legend(parts),
    before > 0 && el("p", { class: "muted small more" },
      `Brought in with no client of that node waiting: ${bytes(totals.preloaded_wan)} over the WAN, ${bytes(totals.preloaded_peer)} from neighbours${media > 0 ? `, ${bytes(media)} from bundles` : ""}.`),
  ];
}

/** So many hours or days the chart shows at least, so that a bar has its place in the period. */
const LENGTH = { "24h": 24, "7d": 7, "30d": 30, all: 7 };

/** One bar for each hour or day, also for those in which nothing happened. */
function bars(savings, unit, since) {
  const step = unit === "hour" ? 3600e3 : 86400e3;
  const rows = new Map(savings.rows.map((row) => [Math.floor(Date.parse(row[unit]) / step), row]));
  const last = Math.floor((Date.parse(savings.to) - 1) / step);
  const first = Math.min(Math.floor(Date.parse(savings.from) / step), last - LENGTH[since]);
  const list = [];
  for (let at = Math.max(first, last - 2000); at <= last; at += 1) {
    const row = rows.get(at);
    const date = new Date(at * step);
    const iso = date.toISOString();
    const hour = date.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
    list.push({
      label: unit === "hour" ? time(iso) : iso.slice(0, 10),
      short: unit === "hour" ? hour : iso.slice(5, 10),
      delivered: row?.delivered ?? 0,
      wan: row?.wan_wire ?? 0,
    });
  }
  return list;
}

function packages(all, path) {
  const columns = [["Package"], ["Received", "n"], ["WAN", "n"], ["Neighbours", "n"], ["Held", "n"], ["Saved", "n"]];
  const size = (row) => Math.max(row.delivered, row.wan_wire);
  const rows = all.filter((row) => row.delivered || row.wan_wire).sort((a, b) => size(b) - size(a));
  const shown = rows.slice(0, MOST_ROWS).map((row) => [
    row.package, bytes(row.delivered), bytes(row.wan_wire), bytes(row.peer), bytes(row.local),
    row.delivered ? saved(row.delivered - row.wan_wire, row.delivered) : "\u2013",
  ]);
  if (!shown.length) return [el("h3", null, "By package"), el("p", { class: "muted" }, "Nothing yet in this period.")];
  return [
    table("by-package-table", "By package", columns, shown),
    rows.length > MOST_ROWS && el("p", { class: "muted small more" }, `${rows.length - MOST_ROWS} more in `, el("a", { href: path }, "the ledger"), "."),
  ];
}

function reasons(all) {
  const columns = [["Why bytes crossed the WAN"], ["On the wire", "n"], ["Content", "n"], ["Twice", "n"]];
  const rows = [...all].sort((a, b) => b.wan_wire - a.wan_wire).map((row) => [
    [[el("div", null, row.reason.replaceAll("_", " ")), el("div", { class: "muted small" }, REASONS[row.reason] ?? "")]],
    bytes(row.wan_wire), bytes(row.wan), row.wan_duplicate ? [bytes(row.wan_duplicate), "neg"] : "\u2013",
  ]);
  if (!rows.length) return [el("h3", null, "By reason"), el("p", { class: "muted" }, "Nothing crossed the WAN in this period.")];
  return table("by-reason-table", "By reason", columns, rows);
}

/** What the figures leave out, said plainly. */
function notes(savings) {
  const list = [];
  const { unanswered, disagreements, gaps } = savings;
  if (unanswered.length) list.push(`These figures leave out what did not answer: ${unanswered.map(short).join(", ")}.`);
  for (const it of disagreements.slice(0, 3)) {
    list.push(`The books of ${short(it.giver)} and ${short(it.taker)} disagree: ${bytes(it.given)} given, ${bytes(it.taken)} taken. The taker's figure is used.`);
  }
  if (gaps.length) {
    const last = gaps.map((gap) => gap.after).sort().pop();
    list.push(`The books have gaps where an agent was killed (${gaps.length}; the last one at ${time(last)}): up to a second is missing each time.`);
  }
  return list.map((text) => el("p", { class: "note" }, text));
}
