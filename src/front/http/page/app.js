// The dashboard: asks /api/v1, listens to its events, and rests while nobody looks at it.

import { ask, byId, say } from "./dom.js";
import * as now from "./now.js";
import * as savings from "./savings.js";
import * as site from "./site.js";

const SITE_EVERY = 10_000;
const SAVINGS_EVERY = 15_000;
const AGAIN = 3_000;

let about = null; // this node's status, as it was when the page was opened
let events = null;
let timers = [];
let turn = 0; // counts starts: what belongs to an earlier one is over
let asking = null; // the ledger is asked one thing at a time, and the last one counts

function live(state, text) {
  byId("live").className = `live ${state}`;
  say(byId("live"), text);
}

async function loadSavings() {
  asking?.abort();
  asking = new AbortController();
  try {
    await savings.load(asking.signal);
  } catch (error) {
    if (error.name !== "AbortError") lost();
  }
}

async function loadSite() {
  try {
    const [whole, health, status] = await Promise.all(["site?holds=40", "health", "status"].map((it) => ask(`/api/v1/${it}`)));
    now.know(whole.nodes);
    site.showOrdered(status);
    site.show(whole);
    site.showHealth(health);
  } catch {
    lost();
  }
}

function lost() {
  live("off", "The agent does not answer");
}

/** Shows what the agent tells, as it changes. */
function listen() {
  events = new EventSource("/api/v1/events");
  events.addEventListener("open", () => live("on", "Live"));
  events.addEventListener("status", (event) => now.facts(about, JSON.parse(event.data)));
  events.addEventListener("flights", (event) => {
    if (now.flights(JSON.parse(event.data))) {
      loadSavings();
      loadSite();
    }
  });
  events.addEventListener("error", () => {
    lost();
    // A refusal ends it for good; a broken line it mends by itself.
    if (events?.readyState === EventSource.CLOSED) timers.push(setTimeout(restart, AGAIN));
  });
}

function rest() {
  turn += 1;
  events?.close();
  events = null;
  timers.forEach(clearTimeout);
  timers = [];
}

function restart() {
  rest();
  if (!document.hidden) start();
}

async function start() {
  const mine = turn;
  try {
    about = await ask("/api/v1/status");
    if (mine !== turn) return;
  } catch {
    lost();
    if (mine !== turn) return;
    timers.push(setTimeout(restart, AGAIN));
    return;
  }
  say(byId("site-name"), about.site);
  document.title = `${about.site} \u00b7 Branchline`;
  say(byId("about"), `Node ${about.node}, version ${about.version}.`);
  now.facts(about, about);
  now.flights(about.flights);
  listen();
  loadSavings();
  loadSite();
  // Cleared as timeouts are: the two share their numbers.
  timers.push(setInterval(loadSite, SITE_EVERY), setInterval(loadSavings, SAVINGS_EVERY));
}

/** Marks where the reader is. */
function follow() {
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const sections = [...document.querySelectorAll("main section")];
  const mark = () => {
    const atEnd = window.innerHeight + window.scrollY >= document.documentElement.scrollHeight - 4;
    const passed = sections.filter((it) => it.getBoundingClientRect().top < 160);
    const here = (atEnd && window.scrollY > 0 ? sections : passed).at(-1) ?? sections[0];
    links.forEach((link, id) => (id === here.id ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current")));
  };
  document.addEventListener("scroll", mark, { passive: true });
  mark();
}

document.querySelectorAll("input[name=scope], input[name=since]").forEach((it) => it.addEventListener("change", loadSavings));
byId("package-filter").addEventListener("input", site.showPackages);
byId("package-held").addEventListener("change", site.showPackages);
document.addEventListener("visibilitychange", restart);
let width = 0;
new ResizeObserver(([entry]) => {
  const wide = Math.round(entry.contentRect.width);
  if (wide !== width) savings.draw();
  width = wide;
}).observe(byId("over-time"));
follow();
// After the first paint; a page that is opened out of sight begins when it is looked at.
requestAnimationFrame(() => setTimeout(restart));
