// What is happening now: the node's own facts, and the flights as their chunks fill.

import { byId, bytes, count, el, percent, put, say, short, span, svg } from "./dom.js";

const cards = new Map(); // by blob
const ended = [];
let hosts = new Map(); // host names by node id

/** Who is who, as the site was last asked. */
export function know(nodes) {
  hosts = new Map(nodes.map((node) => [node.node, node.me ? "this node" : `${node.host} (${short(node.node)})`]));
}

const nameOf = (id) => hosts.get(id) ?? `node ${short(id)}`;

/** The node's own facts. `since` is when the agent was started. */
export function facts(about, glance) {
  const { store, catalog } = glance;
  const fact = (name, value, more) => el("div", null, el("dt", null, name), el("dd", { class: "value" }, value), more);
  const detail = (text) => el("dd", { class: "muted small" }, text);
  const held = `${count(store.complete, "package")} held${store.partial ? `, ${store.partial} in part` : ""}`;
  const weight = glance.weight_reasons.length ? glance.weight_reasons.join(", ") : `weight ${glance.effective_weight}`;
  put(byId("facts"),
    fact("This node", short(about.node), detail(`${about.role}, ${weight}`)),
    fact("Neighbours", String(glance.members), detail(glance.ready ? "connected" : "starting: looking for the site")),
    fact("Store", `${bytes(store.bytes)} of ${bytes(store.quota)}`, [
      el("dd", null, el("progress", { max: store.quota || 1, value: store.bytes, "aria-label": "Store" })), detail(held)]),
    fact("Serving neighbours", `${glance.uploads.used} of ${glance.uploads.slots}`, detail("upload slots in use")),
    fact("Catalog", catalog.version ? `version ${catalog.version}` : "none yet", detail(catalogState(catalog))),
    fact("WAN", glance.wan.text ?? glance.wan, null));
}

function catalogState(catalog) {
  if (catalog.error) return "the last check failed";
  if (catalog.expired) return "expired";
  return catalog.expires ? `good until ${catalog.expires.slice(0, 10).replaceAll("-", "\u2011")}` : "not checked yet";
}

/** The flights; returns whether one has ended. */
export function flights(list) {
  const seen = new Set();
  for (const flight of list) {
    seen.add(flight.blob);
    let card = cards.get(flight.blob);
    if (!card) {
      card = make();
      cards.set(flight.blob, card);
      byId("flights").append(card.root);
      say(byId("news"), `${flight.package} is on its way.`);
    }
    show(card, flight);
  }
  const over = [...cards].filter(([blob]) => !seen.has(blob));
  for (const [blob, card] of over) {
    card.root.remove();
    cards.delete(blob);
    const at = new Date().toLocaleTimeString(undefined, { timeStyle: "medium" });
    ended.unshift(`${card.name} at ${at}`);
    ended.splice(4);
    say(byId("news"), `The flight of ${card.name} has ended.`);
  }
  say(byId("ended"), ended.length ? `Ended while you watched: ${ended.join("; ")}.` : "");
  byId("no-flights").hidden = list.length > 0;
  return over.length > 0;
}

function make() {
  const card = { cells: [], name: "", title: el("h4"), role: el("span", { class: "role" }), rate: el("span", { class: "rate" }), meta: el("p", { class: "meta" }) };
  card.bar = svg("svg", { role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100, preserveAspectRatio: "none" });
  card.root = el("li", { class: "flight" }, el("div", { class: "line" }, card.title, card.role, card.rate), card.bar, card.meta);
  return card;
}

const ROLES = { asking: "asking the site", lead: "this node leads", joining: "joining" };

function show(card, flight) {
  const leads = flight.role === "lead" || flight.role === "asking";
  card.name = flight.package;
  card.root.classList.toggle("lead", leads);
  say(card.title, flight.package);
  say(card.role, ROLES[flight.role] ?? `follows ${flight.lead ? nameOf(flight.lead) : "its lead"}`);
  say(card.rate, flight.rate === null ? "" : `${bytes(flight.rate)}/s`);
  fill(card, flight);
  const left = flight.rate > 0 ? (flight.size - flight.bytes) / flight.rate : null;
  const fact = (value, words) => el("span", null, el("b", null, value), ` ${words}`);
  card.meta.replaceChildren(...[
    flight.size > 0 && fact(bytes(flight.bytes), `of ${bytes(flight.size)} (${percent(flight.bytes, flight.size)})`),
    flight.chunks > 0 && fact(flight.held, `of ${count(flight.chunks, "chunk")}`),
    leads && fact(flight.followers, flight.followers === 1 ? "follower" : "followers"),
    leads && fact(flight.pulling, "being pulled over the WAN"),
    left !== null && left > 0 && left < 360000 && fact(span(left), "left"),
  ].filter(Boolean));
}

/** The bar: a cell for each part of the blob, as full as the part. */
function fill(card, flight) {
  const parts = flight.filled;
  if (card.cells.length !== parts.length) {
    card.cells = parts.map((_, index) => svg("rect", { x: index, y: 0, width: 1.02, height: 1 }));
    card.bar.setAttribute("viewBox", `0 0 ${parts.length || 1} 1`);
    card.bar.replaceChildren(...card.cells);
  }
  parts.forEach((part, index) => {
    const shown = String(part / 100);
    if (card.cells[index].getAttribute("fill-opacity") !== shown) card.cells[index].setAttribute("fill-opacity", shown);
  });
  const share = flight.size ? Math.floor((flight.bytes / flight.size) * 100) : 0;
  card.bar.setAttribute("aria-valuenow", share);
  card.bar.setAttribute("aria-label", `${flight.package}: what this node holds`);
}
