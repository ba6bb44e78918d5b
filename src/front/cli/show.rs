//! `branchline status` and `peers`: facts as text or JSON.

use clap::Args;
use jiff::Timestamp;

use super::Output;
use super::client::Target;
use crate::core::bitrate::{Rate, Size};
use crate::core::lapse::Lapse;
use crate::node::{Role, report};

#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Peers {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
}

/// Columns as wide as their widest cell.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

impl Status {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let status: report::Status = self.target.json("/api/v1/status").await?;
        if self.output.json {
            return super::print_json(&status);
        }
        let catalog = match (&status.catalog.error, status.catalog.age_s) {
            (Some(error), _) => format!("version {}; {error}", status.catalog.version),
            (None, Some(age)) => format!("version {}, checked {age} s ago", status.catalog.version),
            (None, None) => format!("version {}, not checked yet", status.catalog.version),
        };
        let store = format!(
            "{} packages ({} partial), {} of {}",
            status.store.complete + status.store.partial,
            status.store.partial,
            Size(status.store.bytes),
            Size(status.store.quota),
        );
        let catalog = status.origin.is_some().then_some(catalog);
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let mut rows = vec![
            row("node", status.node.clone()),
            row("site", format!("{}, {} members connected", status.site, status.members)),
            row("role", role(&status)),
            row("listening", status.listening.join(", ")),
            row("origin", origin(&status)),
            row("store", store),
            row("background", background(&status.yielding)),
            row("wan", status.wan.text.clone()),
            row("running", format!("{} s, version {}", status.uptime_s, status.version)),
        ];
        if let Some(catalog) = catalog {
            rows.insert(5, row("catalog", catalog));
        }
        for kept in &status.keeping {
            let orders = kept.orders.join("; ");
            rows.push(row("keeping", format!("{}: {} ({orders})", kept.package, kept.state())));
        }
        rows.extend(upkeep_rows(&status).into_iter().map(|(name, value)| row(name, value)));
        rows.extend(status.troubles.iter().map(|trouble| row("trouble", trouble.clone())));
        for flight in &status.flights {
            let with = match (&flight.lead, flight.role.as_str()) {
                (Some(lead), _) => format!("behind {}", &lead[lead.len().saturating_sub(6)..]),
                (None, _) => format!("{} followers, pulling {}", flight.followers, flight.pulling),
            };
            let progress = format!("{} of {} chunks", flight.held, flight.chunks);
            rows.push(row("flight", format!("{}: {}, {progress}, {with}", flight.package, flight.role)));
        }
        super::print(&table(&rows))
    }
}

/// Where packages come from, and what still works while that is out of reach.
fn origin(status: &report::Status) -> String {
    let Some(address) = &status.origin else { return "none: it fetches from upstreams only".to_owned() };
    let Some(outage) = &status.outage else { return address.clone() };
    let since: Option<Timestamp> = outage.since.parse().ok();
    let now = Timestamp::now();
    let since = since.map_or_else(String::new, |at| {
        let lasts = Lapse::from(now.duration_since(at).unsigned_abs());
        let today = at.strftime("%F").to_string() == now.strftime("%F").to_string();
        let at = at.strftime(if today { "%H:%M UTC" } else { "%Y-%m-%d %H:%M UTC" });
        format!(" since {at} ({lasts})")
    });
    let from = if outage.reached_by.is_some() { " from this node" } else { "" };
    format!("{address}: out of reach{from}{since}: {}", outage.what_works())
}

/// How what nobody waits for shares the WAN with others.
fn background(it: &report::YieldingStatus) -> String {
    let state = match it.state.as_str() {
        "off" | "unable" => return format!("does not give way: {}", it.why),
        "gives_way" => "gives way",
        state => state,
    };
    let mut said = format!("{state}: {}", it.why);
    if let (Some(queueing), Some(rate)) = (it.queueing_ms, it.rate) {
        let (rate, best) = (Rate(rate), Rate(it.best));
        said += &format!(
            "; packets wait {queueing:.0} ms ({:.0} ms is aimed at), at most {rate} of {best}",
            it.target_ms
        );
    }
    if it.held_back_s >= 1.0 {
        let (held_back, active, left) = (it.held_back_s, it.active_s, Size(it.left));
        said += &format!("; gave way {held_back:.0} s of {active:.0} s, {left} left to others");
    }
    said
}

/// How the store is kept in order.
fn upkeep_rows(status: &report::Status) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    for it in &status.package_quotas {
        let over = match it.over {
            0 => String::new(),
            over => format!("; {} too much is kept or in use", Size(over)),
        };
        rows.push(("quota", format!("{}: {} of {}{over}", it.package, Size(it.bytes), Size(it.quota))));
    }
    let it = &status.verification;
    let since = match (&it.all_verified_since, &it.interval) {
        (Some(since), _) => format!("all since {since}"),
        (None, Some(_)) => "not all of it yet".to_owned(),
        (None, None) => "only by hand".to_owned(),
    };
    let runs = it.by_hand.iter().chain(&it.scheduled).find(|run| run.ended.is_none());
    let running = runs.map(|run| format!("; running, {}", run.progress())).unwrap_or_default();
    let last = it.damage.first();
    let last =
        last.map(|it| format!("; damaged on {}: {}, {}", it.at, it.package, it.state)).unwrap_or_default();
    rows.push(("verified", format!("{since}{running}{last}")));
    if let Some(package) = &status.hook.running {
        rows.push(("hook", format!("runs for {package}; {} wait", status.hook.waiting)));
    }
    let failing =
        status.hook.failing.iter().map(|it| ("hook", format!("{} {} at {}", it.label(), it.end(), it.at)));
    let last = status.hook.last.iter().filter(|it| it.ok);
    rows.extend(failing.chain(last.map(|it| ("hook", format!("{} {} at {}", it.label(), it.end(), it.at)))));
    rows
}

/// The role, and how readily this node leads.
fn role(status: &report::Status) -> String {
    let name = status.role.as_str();
    match status.role {
        Role::Leech => format!("{name}: leads nobody and serves nobody"),
        _ if status.weight_reasons.is_empty() => format!("{name}, weight {}", status.weight),
        _ => {
            let reasons = status.weight_reasons.join(", ");
            format!("{name}, weight {} of {} ({reasons})", status.effective_weight, status.weight)
        }
    }
}

impl Peers {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let peers: Vec<report::Peer> = self.target.json("/api/v1/peers").await?;
        if self.output.json {
            return super::print_json(&peers);
        }
        if peers.is_empty() {
            return super::print(
                "no members are connected; do they have the same --site and --site-key, and does the network \
                 let multicast through? If not, name one with --peer",
            );
        }
        let head =
            ["NODE", "HOST", "ADDRESS", "LATENCY", "RATE", "RECEIVED", "SENT", "ANSWERS", "FAULTS", "UP"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for peer in peers {
            let latency = peer.latency_ms.map_or_else(|| "-".into(), |latency| format!("{latency:.1} ms"));
            let it = peer.dealings;
            let rate = if it.rate == 0 { "-".into() } else { format!("{}/s", Size(it.rate)) };
            // Busy and slow are no faults, and yet tell why another was asked.
            let faults = format!("{} ({} busy, {} slow)", it.faults, it.busy, it.slow);
            let (received, sent) = (Size(it.received).to_string(), Size(it.sent).to_string());
            let up = format!("{} s", peer.connected_s);
            let answers = it.answers.to_string();
            rows.push(vec![
                peer.node,
                peer.host,
                peer.address,
                latency,
                rate,
                received,
                sent,
                answers,
                faults,
                up,
            ]);
        }
        super::print(&table(&rows))
    }
}
