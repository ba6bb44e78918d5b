//! `GET /api/v1/savings`: the ledger, of a node or of its site.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::Node;
use super::super::books::hour_now;
use super::super::neighbours::NodeBooks;
use super::agreement::{Disagreement, disagreements, with_absent};
use crate::core::ledger::{Row, RowKey, Totals};

/// The savings of some hours.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Savings {
    /// Whose: `node` or `site`.
    pub scope: Scope,
    /// The first hour, UTC.
    pub from: String,
    /// The end of the last hour, UTC.
    pub to: String,
    /// The sum of all rows.
    pub totals: Totals,
    /// What did not have to cross the WAN.
    pub saved: Saved,
    /// One row for each package, node, hour or reason.
    pub rows: Vec<SavingsRow>,
    /// The same books grouped in other ways, if that was asked for: one snapshot, so that they agree.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Grouping>,
    /// Nodes whose books are in.
    pub answered: usize,
    /// Members that did not answer, and machines that are away but gave or took content in these hours
    /// (scope `site`).
    #[serde(default)]
    pub unanswered: Vec<String>,
    /// Where the giver's books and the taker's disagree by more than 1 %. The figures are the taker's.
    #[serde(default)]
    pub disagreements: Vec<Disagreement>,
    /// When an agent did not stop as it should: up to a second of its books may be missing.
    #[serde(default)]
    pub gaps: Vec<NodeGap>,
}

/// The rows of one more grouping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grouping {
    /// What a row stands for.
    pub by: By,
    /// The rows.
    pub rows: Vec<SavingsRow>,
}

/// What did not have to cross the WAN, in bytes, against two denominators. Negative if more crossed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Of what clients received: `delivered - wan_wire`.
    pub of_delivered: i64,
    /// Of what would have crossed without Branchline: `direct - wan_wire`.
    pub of_direct: i64,
    /// Of `of_direct`, by recipes: `rebuilt - wan_recipes`. The rest is by sharing.
    #[serde(default)]
    pub by_recipe: i64,
}

impl Saved {
    /// What these totals save.
    pub fn by(totals: &Totals) -> Self {
        Self {
            of_delivered: totals.saved_of_delivered(),
            of_direct: totals.saved_of_direct(),
            by_recipe: totals.saved_by_recipe(),
        }
    }
}

/// A row of the savings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavingsRow {
    /// What it is about.
    #[serde(flatten)]
    pub about: About,
    /// The sums.
    #[serde(flatten)]
    pub totals: Totals,
}

/// What a row of the savings is about: one field, called as what rows are grouped by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// `NAME@VERSION`.
    Package(String),
    /// A package's name, with all its versions.
    Name(String),
    /// A node's id.
    Node(String),
    /// Through which front clients asked.
    Front(String),
    /// The beginning of an hour, UTC.
    Hour(String),
    /// A day, UTC.
    Day(String),
    /// Why bytes crossed the WAN: `wan_wire`, `wan_duplicate` and content (as `wan`) by reason.
    Reason(String),
    /// The member that content came from: `peer`, and what it was sent: `served`.
    Peer(String),
}

impl About {
    /// In words.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Package(name)
            | Self::Name(name)
            | Self::Node(name)
            | Self::Front(name)
            | Self::Hour(name)
            | Self::Day(name)
            | Self::Reason(name)
            | Self::Peer(name) => name,
        }
    }
}

/// A node's gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeGap {
    /// The node.
    pub node: String,
    /// The last that it wrote down, UTC.
    pub after: String,
    /// What was on its way over the WAN just then, in bytes, by estimate: entered, and told in
    /// `wan_estimated` too.
    #[serde(default)]
    pub estimated: u64,
}

/// What savings are grouped by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The package version.
    #[default]
    Package,
    /// The package, with all its versions.
    Name,
    /// The node.
    Node,
    /// The face of the agent that clients used.
    Front,
    /// The hour.
    Hour,
    /// The day.
    Day,
    /// Why bytes crossed the WAN.
    Reason,
    /// The member that content came from.
    Peer,
}

/// Whose savings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// This node's.
    #[default]
    Node,
    /// Those of all nodes of the site that can be reached.
    Site,
}

impl Node {
    /// The savings of these hours (all, if `None`).
    ///
    /// The same books are grouped in several ways. Those of other nodes may be as old as `max_age`, so
    /// that many who look at the same ask once.
    pub async fn savings(
        &self,
        scope: Scope,
        by: By,
        also: &[By],
        hours: Option<Range<u32>>,
        max_age: Duration,
    ) -> Savings {
        let hours = hours.unwrap_or(0..u32::MAX);
        let own = (self.me().to_string(), self.own_books(hours.clone()));
        let others = match scope {
            Scope::Node => None,
            Scope::Site => Some(self.ledgers(hours.clone(), max_age).await),
        };
        let others = others.as_deref();
        let nodes: Vec<_> =
            std::iter::once(&own).chain(others.iter().flat_map(|others| &others.nodes)).collect();
        let mut savings = group(&nodes, by);
        savings.also = also.iter().map(|by| Grouping { by: *by, rows: group(&nodes, *by).rows }).collect();
        let first = nodes.iter().flat_map(|(_, books)| &books.rows).map(|(key, _)| key.hour).min();
        savings.scope = scope;
        savings.from = hour(hours.start.max(first.unwrap_or(hours.start)).min(hour_now()));
        savings.to = hour(hours.end.min(hour_now() + 1));
        savings.answered = nodes.len();
        let silent = others.map(|others| others.unanswered.clone()).unwrap_or_default();
        savings.unanswered = if scope == Scope::Site { with_absent(&nodes, silent) } else { silent };
        savings.disagreements = disagreements(&nodes);
        savings
    }
}

/// Adds up books by what rows are about.
fn group(nodes: &[&(String, NodeBooks)], by: By) -> Savings {
    let mut savings = Savings::default();
    let mut groups: BTreeMap<About, Totals> = BTreeMap::new();
    for (node, books) in nodes {
        let gap = |gap: &super::super::books::Gap| NodeGap {
            node: node.clone(),
            after: time(gap.after),
            estimated: gap.estimated,
        };
        savings.gaps.extend(books.gaps.iter().map(gap));
        for (key, row) in &books.rows {
            savings.totals.add(&row.totals);
            for (about, totals) in parts(node, key, row, by) {
                groups.entry(about).or_default().add(&totals);
            }
        }
    }
    savings.saved = Saved::by(&savings.totals);
    savings.rows = groups.into_iter().map(|(about, totals)| SavingsRow { about, totals }).collect();
    savings
}

/// What a row adds to which groups.
fn parts(node: &str, key: &RowKey, row: &Row, by: By) -> Vec<(About, Totals)> {
    let name = || key.package.split_once('@').map_or(&*key.package, |(name, _)| name).to_owned();
    let about = match by {
        By::Package => About::Package(key.package.clone()),
        By::Name => About::Name(name()),
        By::Node => About::Node(node.to_owned()),
        By::Front => About::Front(key.front.as_str().to_owned()),
        By::Hour => About::Hour(hour(key.hour)),
        By::Day => About::Day(day(key.hour)),
        By::Reason => return by_reason(row),
        By::Peer => return by_peer(row),
    };
    vec![(about, row.totals)]
}

fn by_reason(row: &Row) -> Vec<(About, Totals)> {
    let wire = row.reasons.iter().map(|(it, bytes)| (it, Totals { wan_wire: *bytes, ..Totals::default() }));
    let content = row.content.iter().map(|(it, bytes)| (it, Totals { wan: *bytes, ..Totals::default() }));
    let twice = row.duplicates.iter();
    let twice = twice.map(|(it, bytes)| (it, Totals { wan_duplicate: *bytes, ..Totals::default() }));
    let parts = wire.chain(content).chain(twice);
    parts.map(|(reason, totals)| (About::Reason(reason.as_str().to_owned()), totals)).collect()
}

fn by_peer(row: &Row) -> Vec<(About, Totals)> {
    let came = row.givers.iter().map(|(node, bytes)| (node, Totals { peer: *bytes, ..Totals::default() }));
    let gone = row.takers.iter().map(|(node, bytes)| (node, Totals { served: *bytes, ..Totals::default() }));
    came.chain(gone).map(|(node, totals)| (About::Peer(node.to_string()), totals)).collect()
}

fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |at| at.to_string())
}

fn hour(hours: u32) -> String {
    time(i64::from(hours) * 3600)
}

fn day(hours: u32) -> String {
    hour(hours / 24 * 24).chars().take(10).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::id::NodeId;
    use crate::core::ledger::{Front, Ledger, Source, WanReason, Wire};

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn all(site: &[(String, NodeBooks)]) -> Vec<&(String, NodeBooks)> {
        site.iter().collect()
    }

    fn books(fill: impl FnOnce(&mut Ledger)) -> NodeBooks {
        let mut ledger = Ledger::default();
        fill(&mut ledger);
        let rows = ledger.rows(0..u32::MAX).map(|(key, row)| (key.clone(), row.clone())).collect();
        NodeBooks { rows, gaps: Vec::new() }
    }

    fn key(hour: u32, package: &str) -> RowKey {
        RowKey { hour, package: package.into(), front: Front::Get }
    }

    fn site(taken: u64) -> Vec<(String, NodeBooks)> {
        let lead = books(|ledger| {
            ledger.arrived(key(48, "p@1"), Source::Wan(WanReason::Cold), 100 << 20);
            let wire = Wire { read: 101 << 20, ..Wire::default() };
            ledger.wire(&key(48, "p@1"), WanReason::Cold, wire);
            ledger.served(&key(49, "p@1"), node(2), 100 << 20);
        });
        let follower = books(|ledger| {
            let mut arrival = ledger.arrived(key(49, "p@1"), Source::Peer(node(1)), taken);
            ledger.delivered(&key(49, "p@1"), Some(&mut arrival), taken);
            ledger.direct(&key(49, "p@1"), taken);
            ledger.delivered(&key(80, "q@2"), None, 7);
        });
        vec![(node(1).to_string(), lead), (node(2).to_string(), follower)]
    }

    #[test]
    fn every_grouping_adds_up() {
        let site = site(100 << 20);
        for by in [By::Package, By::Name, By::Node, By::Front, By::Hour, By::Day] {
            let savings = group(&all(&site), by);
            let mut sum = Totals::default();
            savings.rows.iter().for_each(|row| sum.add(&row.totals));
            assert_eq!(sum, savings.totals, "{by:?}");
        }
        let names = |by| {
            group(&all(&site), by).rows.iter().map(|row| row.about.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(By::Name), ["p", "q"]);
        assert_eq!(names(By::Day), ["1970-01-03", "1970-01-04"]);
        assert_eq!(names(By::Reason), ["cold"]);
        assert_eq!(names(By::Peer), [node(1).to_string(), node(2).to_string()]);
        let saved = group(&all(&site), By::Package).saved;
        assert_eq!(saved, Saved { of_delivered: 7 - (1 << 20), of_direct: -(1 << 20), by_recipe: 0 });
    }

    #[test]
    fn a_row_says_in_one_field_what_it_is_about() {
        let row = SavingsRow { about: About::Package("p@1".into()), totals: Totals::default() };
        let json = serde_json::to_value(&row).expect("it can be said");
        assert_eq!((&json["package"], &json["delivered"]), (&"p@1".into(), &0.into()));
        let back: SavingsRow = serde_json::from_value(json).expect("its own");
        assert_eq!(back.about, row.about);
    }

    #[test]
    fn machines_that_are_away_are_named() {
        let site = site(100 << 20);
        let silent = || vec!["x".to_owned()];
        assert_eq!(with_absent(&all(&site), silent()), silent());
        let lead = node(1).to_string();
        assert_eq!(
            with_absent(&all(&site[1..]), silent()),
            [lead, "x".to_owned()],
            "what it pulled is missing"
        );
    }

    #[test]
    fn givers_and_takers_who_disagree_are_named() {
        assert_eq!(disagreements(&all(&site(100 << 20))), []);
        assert_eq!(disagreements(&all(&site(97 << 20))), [], "3 MiB may have been on their way");
        let found = disagreements(&all(&site(90 << 20)));
        assert_eq!((found[0].given, found[0].taken), (100 << 20, 90 << 20));
        assert_eq!((&found[0].giver, &found[0].taker), (&node(1).to_string(), &node(2).to_string()));
    }
}
