// The site: its nodes and what they hold, its packages and who holds them, and what is wrong.

import { byId, bytes, count, el, percent, put, short, span, table, time } from "./dom.js";

const FEW_PACKAGES = 15;
const MOST_PACKAGES = 500;
const MOST_NODES = 300;
let packages = [];
let showAll = false;

/** Nodes and packages, as the site was last asked. */
export function show(site) {
  // What the site holds comes first; of the same kind, by name.
  const held = (it) => it.complete + it.partial > 0;
  packages = site.packages.filter(held).concat(site.packages.filter((it) => !held(it)));
  showPackages();
  const silent = site.unanswered;
  put(byId("node-notes"), silent.length > 0 && el("p", { class: "note" },
    `${count(silent.length, "node")} did not answer, and what ${silent.length === 1 ? "it holds is" : "they hold is"} not counted here: `,
    silent.slice(0, 20).map((id, index) => [index ? ", " : "", el("code", { title: id }, short(id))]),
    silent.length > 20 ? ", \u2026" : "."));
  const columns = [["Node"], ["Holds"], ["Store"], ["Weight to lead", "n"], ["Round trip", "n"], ["Running", "n"], ["Version"]];
  const caption = `${count(site.nodes.length, "node")} of the site that answered`;
  put(byId("node-table"), table("nodes-caption", caption, columns, site.nodes.slice(0, MOST_NODES).map(row)),
    more(site.nodes.length, MOST_NODES));
}

function row(node) {
  const tag = (text, kind) => el("span", { class: `tag ${kind ?? ""}` }, text);
  const name = [
    el("div", null, node.host || "(no name)"),
    el("div", null, node.me && tag("this node", "me"), node.role !== "normal" && tag(node.role), node.hub && tag("hub"),
      !node.ready && tag("starting"), el("code", { class: "muted", title: node.node }, short(node.node))),
  ];
  const weight = [el("div", null, String(node.weight)),
    node.weight_reasons.length > 0 && el("div", { class: "muted small" }, node.weight_reasons.join(", "))];
  const store = [`${bytes(node.bytes)} of ${bytes(node.quota)}`,
    el("progress", { max: node.quota || 1, value: node.bytes, "aria-label": `Store of ${node.host}` })];
  return [[name], [holds(node)], [store], [weight],
    node.me || node.latency_ms === null ? "\u2013" : `${node.latency_ms.toFixed(1)}\u00a0ms`,
    span(node.uptime_s), node.version];
}

function holds(node) {
  const all = node.holds.length + node.left_out;
  if (!all) return el("span", { class: "muted" }, "nothing yet");
  const items = node.holds.map((it) => el("li", null, it.package, !it.complete && el("span", { class: "muted" }, " in part")));
  return el("details", { "data-key": `holds-${node.node}` }, el("summary", null, count(all, "package")),
    el("ul", { class: "small" }, items, node.left_out > 0 && el("li", { class: "muted" }, `and ${node.left_out} more`)));
}

/** What admins have ordered to be kept, and how far it is. */
export function showOrdered(status) {
  const columns = [["Ordered"], ["Copies", "n"], ["Here", "n"], ["If machines are lost"], ["Order"]];
  const rows = status.keeping.map((it) => [
    it.package, it.copies_wanted ? `${it.copies} of ${it.copies_wanted}` : it.copies,
    it.complete ? "complete" : it.here || it.bytes ? percent(it.bytes, it.size) : "\u2013",
    it.refused && !it.complete ? [it.refused, "gone"] : survival({ ...it, complete: it.copies, partial: it.bytes }),
    [[it.orders.join("; "), it.by && ` (by ${time(it.by)})`]],
  ]);
  const box = byId("ordered");
  box.hidden = rows.length === 0 && status.troubles.length === 0;
  put(box, rows.length > 0 && table("ordered-caption", `${count(rows.length, "version")} that admins have ordered`, columns, rows),
    status.troubles.length > 0 && el("ul", { class: "note" }, status.troubles.map((it) => el("li", null, it))));
}

const more = (all, shown) => all > shown && el("p", { class: "muted small more" },
  `${all - shown} more in `, el("a", { href: "/api/v1/site" }, "/api/v1/site"), ".");

/** The packages that the reader wants to see. */
export function showPackages() {
  const wanted = byId("package-filter").value.trim().toLowerCase();
  const heldOnly = byId("package-held").checked;
  const found = packages.filter((it) => it.package.toLowerCase().includes(wanted) && (!heldOnly || it.complete + it.partial > 0));
  const columns = [["Package"], ["Size", "n"], ["Complete on", "n"], ["In part on", "n"], ["If machines are lost"]];
  const rows = found.slice(0, showAll ? MOST_PACKAGES : FEW_PACKAGES).map((it) => [
    [[it.package, it.channels.map((channel) => [" ", el("span", { class: "tag" }, channel)])]],
    bytes(it.size), it.complete, it.partial || "\u2013", survival(it),
  ]);
  const caption = found.length === packages.length ? count(found.length, "version") : `${found.length} of ${count(packages.length, "version")}`;
  put(byId("package-table"), found.length
    ? table("packages-caption", caption, columns, rows)
    : el("p", { class: "muted" }, packages.length ? "No package matches." : "The catalog lists no packages yet."),
  found.length > FEW_PACKAGES && el("p", { class: "more" }, toggle(found.length)),
  showAll && more(found.length, MOST_PACKAGES));
}

/** Shows all packages, or few again. */
function toggle(all) {
  const button = el("button", { type: "button", "data-key": "all-packages", "aria-expanded": String(showAll) },
    showAll ? "Show fewer" : `Show all ${all}`);
  button.addEventListener("click", () => {
    showAll = !showAll;
    showPackages();
  });
  return button;
}

function survival(it) {
  if (it.survives === null) {
    const none = it.partial ? "in part only: the rest would cross the WAN" : "not on the site: it would cross the WAN";
    return [it.complete ? "only on machines that serve nobody" : none, "gone"];
  }
  if (it.survives === 0) return ["one copy: lost with its machine", "thin"];
  return [`survives the loss of ${it.survives}`, "safe"];
}

const WORDS = { error: "Error", warning: "Warning", info: "To know" };

/** What is wrong, and the badge at the top. */
export function showHealth(health) {
  const number = (severity) => health.faults.filter((fault) => fault.severity === severity).length;
  const badge = byId("health-badge");
  badge.className = `badge ${health.worst ?? "fine"}`;
  const [errors, warnings, infos] = ["error", "warning", "info"].map(number);
  badge.textContent = errors ? count(errors, "error") : warnings ? count(warnings, "warning") : infos ? `Healthy, ${count(infos, "remark")}` : "Healthy";
  const fine = el("li", { class: "fault fine" }, el("h3", null, "No faults found"),
    el("p", { class: "muted" }, "The catalog is current, the disk has room, the neighbours answer, and the books add up."));
  put(byId("faults"), health.faults.length ? health.faults.map(fault) : fine);
}

function fault(it) {
  const line = (name, text) => [el("dt", null, name), el("dd", null, text)];
  return el("li", { class: `fault ${it.severity}` },
    el("h3", null, el("span", { class: "sev" }, WORDS[it.severity] ?? it.severity), el("span", null, it.title)),
    el("dl", null, line("Cause", it.cause), line("What it means", it.effect), line("What to do", it.remedy),
      it.since && line("Since", time(it.since))));
}
