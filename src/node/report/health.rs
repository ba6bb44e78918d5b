//! `GET /api/v1/health`: what is wrong, one cause a fault, and what to do about it.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::super::condition::Condition;
use super::super::hook::HookResult;
use super::super::recipes::Weighing;
use super::super::{Node, blocking};
use super::{Damage, NodeGap, Outage, Site, Wan, catalog_health, upkeep, wan_health, weighings};

/// Gaps in the books are told of for so long.
pub(super) const RECENT: SignedDuration = SignedDuration::from_hours(24 * 7);
/// What is known of the other nodes may be so old.
const SITE_AGE: Duration = Duration::from_secs(10);
/// An examination serves all who ask for it within so long.
const REUSED: Duration = Duration::from_secs(2);
/// A site of fewer nodes has no need of a seed.
const SMALL: usize = 3;

/// The health of a node, and of the site as it sees it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Health {
    /// The gravest severity among the faults; none if there are no faults.
    pub worst: Option<Severity>,
    /// What is wrong, the gravest first.
    pub faults: Vec<Fault>,
}

/// How grave a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Clients are refused something, or figures are wrong.
    Error,
    /// It works, and will not if nothing is done.
    Warning,
    /// It works, and could do so better.
    Info,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What, for programs: one word that does not change.
    pub id: String,
    /// How grave it is.
    pub severity: Severity,
    /// What is wrong.
    pub title: String,
    /// Why: one cause.
    pub cause: String,
    /// What it means to clients.
    pub effect: String,
    /// What to do.
    pub remedy: String,
    /// Since when, UTC, where that is known.
    pub since: Option<String>,
}

/// The last examination, one at a time.
#[derive(Debug, Default)]
pub(in crate::node) struct Examined {
    last: Mutex<Option<(Instant, Health)>>,
}

/// What faults are found from.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) now: Timestamp,
    ready: bool,
    pub(super) origin: String,
    pub(super) catalog_expires: Option<Timestamp>,
    pub(super) catalog_failing: Option<(Timestamp, String)>,
    pub(super) outage: Option<Outage>,
    pub(super) channels_until: Option<Timestamp>,
    disk_nearly_full: bool,
    members: usize,
    peers_configured: usize,
    port: u16,
    gaps: Vec<NodeGap>,
    books_fault: Option<String>,
    wan: Wan,
    damage: Vec<Damage>,
    hooks_failing: Vec<HookResult>,
    weighings: Vec<Weighing>,
    site: Site,
}

fn books_fault(rows: usize) -> Option<String> {
    let say = || format!("{rows} rows do not add up; 'branchline savings --verify' names them");
    (rows > 0).then(say)
}

impl Node {
    /// What is wrong. Asks the site, unless that was done a moment ago.
    pub async fn health(&self) -> Health {
        let mut last = self.inner.examined.last.lock().await;
        match &*last {
            Some((at, health)) if at.elapsed() < REUSED => health.clone(),
            _ => {
                let health = examine(self.facts().await);
                *last = Some((Instant::now(), health.clone()));
                health
            }
        }
    }

    async fn facts(&self) -> Facts {
        let site = self.site(SITE_AGE, 0).await;
        let conditions = self.inner.standing.conditions();
        let gap = |gap: &super::super::books::Gap| {
            let after = Timestamp::from_second(gap.after).ok()?;
            let recent = Timestamp::now().duration_since(after) < RECENT;
            recent.then(|| NodeGap {
                node: self.me().to_string(),
                after: after.to_string(),
                estimated: gap.estimated,
            })
        };
        let books = self.inner.books.clone();
        Facts {
            now: Timestamp::now(),
            ready: self.is_ready(),
            origin: self.inner.config.origin().unwrap_or_default(),
            catalog_expires: self.catalog().current().map(|catalog| catalog.expires),
            catalog_failing: self.catalog().failing().map(|it| (it.since, it.why)),
            outage: self.outage().await,
            channels_until: self.catalog().channels_until().filter(|_| self.catalog().is_cut_off()),
            disk_nearly_full: conditions.contains(&Condition::DiskNearlyFull),
            members: self.inner.net.contacts().len(),
            peers_configured: self.inner.config.peers.len(),
            port: self.inner.config.listen.port(),
            gaps: self.books().gaps().iter().filter_map(gap).collect(),
            books_fault: blocking(move || books_fault(books.health().1)).await.flatten(),
            wan: self.wan(),
            damage: self.inner.verifier.damage(),
            hooks_failing: self.hooks().status().failing,
            weighings: self.weighings(),
            site,
        }
    }
}

pub(super) fn fault(id: &str, severity: Severity, [title, cause, effect, remedy]: [&str; 4]) -> Fault {
    Fault {
        id: id.to_owned(),
        severity,
        title: title.to_owned(),
        cause: cause.to_owned(),
        effect: effect.to_owned(),
        remedy: remedy.to_owned(),
        since: None,
    }
}

fn examine(facts: Facts) -> Health {
    let found = [
        catalog_health::expiry(&facts),
        catalog_health::check(&facts),
        catalog_health::own_way(&facts),
        disk(&facts),
        company(&facts),
        unanswered(&facts),
        books(&facts),
        gaps(&facts),
        seed(&facts),
        wan_health::month(&facts.wan),
        wan_health::schedule(&facts.wan),
        wan_health::clocks(&facts.wan),
        upkeep::damage(facts.now, &facts.damage),
        upkeep::hooks(&facts.hooks_failing),
        weighings::failed(facts.now, &facts.weighings),
    ];
    let mut faults: Vec<Fault> = found.into_iter().flatten().collect();
    faults.sort_by_key(|fault| fault.severity);
    Health { worst: faults.first().map(|fault| fault.severity), faults }
}

fn disk(facts: &Facts) -> Option<Fault> {
    let what = [
        "The disk is nearly full",
        "Little more is free on it than what is to stay free (disk_reserve).",
        "This node leads no flights, and evicts packages sooner; clients are still served.",
        "Free some space, or lower cache_size so that the cache gives way earlier.",
    ];
    facts.disk_nearly_full.then(|| fault("disk_nearly_full", Severity::Warning, what))
}

fn company(facts: &Facts) -> Option<Fault> {
    let cause = format!("None of the {} configured peers is connected.", facts.peers_configured);
    let remedy = format!(
        "Look whether the others run, whether the swarm port is open there and here ({} on this machine), \
         and whether all have the same site name and key.",
        facts.port
    );
    let what = [
        "This node is alone",
        &cause,
        "Every package crosses the WAN for this node, though neighbours may hold it.",
        &remedy,
    ];
    let alone = facts.ready && facts.members == 0 && facts.peers_configured > 0;
    alone.then(|| fault("alone", Severity::Warning, what))
}

fn unanswered(facts: &Facts) -> Option<Fault> {
    let silent = &facts.site.unanswered;
    let short = |node: &String| node.chars().skip(node.chars().count().saturating_sub(6)).collect();
    let names: Vec<String> = silent.iter().take(5).map(short).collect();
    let more = if silent.len() > names.len() { ", ..." } else { "" };
    let cause = format!("Asked for a report, {} said nothing: {}{more}.", silent.len(), names.join(", "));
    let what = [
        "Some nodes do not answer",
        &cause,
        "Figures of the site leave them out, and they may be slow to serve others.",
        "Look at those machines: asleep, overloaded, or of another version.",
    ];
    (!silent.is_empty()).then(|| fault("nodes_unanswered", Severity::Warning, what))
}

fn books(facts: &Facts) -> Option<Fault> {
    let cause = sentence(facts.books_fault.as_ref()?);
    let what = [
        "The books do not add up",
        &cause,
        "Savings may be wrong. Packages are not concerned.",
        "Please report this with the output of 'branchline savings --json'.",
    ];
    Some(fault("books_unbalanced", Severity::Error, what))
}

fn gaps(facts: &Facts) -> Option<Fault> {
    let last = facts.gaps.last()?;
    let cause = match facts.gaps.len() {
        1 => "The agent did not stop as it should once in the last 7 days.".to_owned(),
        times => format!("The agent did not stop as it should {times} times in the last 7 days."),
    };
    let what = [
        "The books have a gap",
        &cause,
        "Each time, up to a second of the books may be missing. Packages are not concerned.",
        "Nothing if the power failed. Otherwise the system's log tells why the agent was killed.",
    ];
    let since = Some(last.after.clone());
    Some(Fault { since, ..fault("books_gap", Severity::Info, what) })
}

fn seed(facts: &Facts) -> Option<Fault> {
    let nodes = &facts.site.nodes;
    let what = [
        "The site has no seed",
        "No node that answers has the role seed.",
        "When machines are switched off, packages go with them and cross the WAN again.",
        "Set role = \"seed\" on a machine that is always on.",
    ];
    let lacking = nodes.len() >= SMALL && !nodes.iter().any(|node| node.role.is_seed());
    lacking.then(|| fault("no_seed", Severity::Info, what))
}

/// Its day, UTC.
pub(super) fn day(at: Timestamp) -> String {
    at.to_string().chars().take(10).collect()
}

/// As a sentence of its own.
pub(super) fn sentence(text: &str) -> String {
    let mut letters = text.trim().chars();
    let first: String = letters.next().map(|first| first.to_uppercase().collect()).unwrap_or_default();
    let end = if text.trim_end().ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{end}", letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::report::SiteNode;

    fn fine() -> Facts {
        let now: Timestamp = "2026-11-01T00:00:00Z".parse().expect("a time");
        Facts {
            now,
            ready: true,
            origin: "http://origin".into(),
            catalog_expires: Some(now + SignedDuration::from_hours(24 * 100)),
            catalog_failing: None,
            outage: None,
            channels_until: None,
            disk_nearly_full: false,
            members: 1,
            peers_configured: 1,
            port: 7421,
            gaps: Vec::new(),
            books_fault: None,
            wan: Wan::default(),
            damage: Vec::new(),
            hooks_failing: Vec::new(),
            weighings: Vec::new(),
            site: Site::default(),
        }
    }

    fn found(facts: Facts) -> Vec<(String, Severity)> {
        examine(facts).faults.into_iter().map(|fault| (fault.id, fault.severity)).collect()
    }

    #[test]
    fn every_fault_is_found_once_by_its_cause() {
        let now = fine().now;
        assert_eq!(found(fine()), []);
        let failing = Some((now, "the origin sent nothing for 5 s".to_owned()));
        let hours = |hours| Some(now + SignedDuration::from_hours(hours));
        let nodes = vec![SiteNode::default(); 3];
        let gap = NodeGap { node: String::new(), after: now.to_string(), estimated: 0 };
        let (error, warning, info) = (Severity::Error, Severity::Warning, Severity::Info);
        for (facts, id, severity) in [
            (Facts { catalog_expires: hours(-1), ..fine() }, "catalog_expired", error),
            (Facts { catalog_expires: hours(1), ..fine() }, "catalog_expiring", warning),
            (Facts { catalog_failing: failing.clone(), ..fine() }, "catalog_not_refreshed", warning),
            (Facts { catalog_failing: failing, catalog_expires: None, ..fine() }, "catalog_missing", error),
            (
                Facts { catalog_expires: hours(-1), channels_until: hours(1), ..fine() },
                "catalog_in_grace",
                warning,
            ),
            (
                Facts { catalog_expires: hours(-2), channels_until: hours(-1), ..fine() },
                "catalog_expired",
                error,
            ),
            (Facts { outage: Some(Outage::default()), ..fine() }, "origin_not_reached", warning),
            (Facts { disk_nearly_full: true, ..fine() }, "disk_nearly_full", warning),
            (Facts { members: 0, ..fine() }, "alone", warning),
            (
                Facts { site: Site { unanswered: vec!["x".into()], ..Site::default() }, ..fine() },
                "nodes_unanswered",
                warning,
            ),
            (Facts { books_fault: Some("wan is 1".into()), ..fine() }, "books_unbalanced", error),
            (Facts { gaps: vec![gap], ..fine() }, "books_gap", info),
            (Facts { site: Site { nodes, ..Site::default() }, ..fine() }, "no_seed", info),
        ] {
            assert_eq!(found(facts), [(id.to_owned(), severity)]);
        }
        let both = Facts { disk_nearly_full: true, catalog_expires: hours(-1), ..fine() };
        let health = examine(both);
        assert_eq!((health.worst, health.faults.len()), (Some(error), 2));
        assert_eq!(health.faults[0].id, "catalog_expired", "the gravest first");
        assert_eq!(sentence("the origin sent nothing"), "The origin sent nothing.");
    }

    #[test]
    fn a_node_that_still_starts_is_not_yet_alone() {
        assert_eq!(found(Facts { ready: false, members: 0, ..fine() }), []);
    }
}
