//! A site's sums, as one of its nodes pushes them.
//!
//! Nodes come, go and start anew, so the sum of their counters can shrink, and a monitoring system
//! would take that for a start from nothing and count everything again. So the node that pushes adds
//! up what each node has booked since it was last asked: by this node, or, when another has just taken
//! over, by the one before ([`NodeTally::told`]). Its sums only grow.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::{Family, Kind, traffic};
use crate::core::ledger::{Row, Totals};
use crate::node::Role;

/// Packages that are told of, those that clients were handed most of.
const TOP: usize = 20;
/// Of each node, so that the sum over all nodes is right for the site's [`TOP`].
const TOP_OF_NODE: usize = 3 * TOP;
/// The longest name of a package that is told of, in bytes.
const LONGEST: usize = 200;

/// What a node tells the one that pushes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(in crate::node) struct NodeTally {
    /// A number that it drew when it started: tells two runs apart.
    pub(in crate::node) run: u64,
    /// What was booked since it started.
    pub(in crate::node) booked: Row,
    /// Of it, what the last node that asked was told.
    pub(in crate::node) told: Row,
    /// Its role.
    pub(in crate::node) role: Role,
    /// Its disk has little more free than the reserve.
    pub(in crate::node) nearly_full: bool,
    /// What is free above the reserve, in bytes.
    pub(in crate::node) headroom: Option<u64>,
    /// The version and the end of its catalog, in seconds since 1970-01-01 UTC.
    pub(in crate::node) catalog: Option<(u64, u64)>,
    /// Rows of its ledger that do not add up.
    pub(in crate::node) faulty_rows: u64,
    /// What its clients were handed most of in the last day.
    pub(in crate::node) packages: Vec<(String, Totals)>,
}

impl NodeTally {
    /// Of so many packages.
    pub(in crate::node) const PACKAGES: usize = TOP_OF_NODE;
}

/// What only grows.
#[derive(Debug, Default)]
pub(in crate::node) struct SiteSums {
    sum: Row,
    /// Which run of each node has been asked, and what it had booked then.
    known: HashMap<String, (u64, Row)>,
}

impl SiteSums {
    /// Adds what a node has booked since it was last asked, by this node or another.
    fn account(&mut self, node: &str, tally: &NodeTally) {
        let before = match self.known.get(node) {
            Some((run, booked)) if *run == tally.run => booked,
            _ => &tally.told,
        };
        self.sum.grow(&tally.booked, before);
        let Row { totals, reasons, content, duplicates, .. } = tally.booked.clone();
        let booked = Row { totals, reasons, content, duplicates, ..Row::default() };
        self.known.insert(node.to_owned(), (tally.run, booked));
    }

    /// Another node pushes: what it will be told is not to be counted here again.
    pub(in crate::node) fn hand_over(&mut self) {
        self.known.clear();
    }

    /// Takes in what the nodes of a site have said, each under its id, and adds up the rest.
    pub(in crate::node) fn take(&mut self, tallies: &[(String, NodeTally)], unanswered: usize) -> SiteFacts {
        if unanswered == 0 {
            // Who is gone is asked for what it told others when it is back.
            self.known.retain(|known, _| tallies.iter().any(|(node, _)| node == known));
        }
        let mut facts = SiteFacts { nodes: tallies.len(), unanswered, ..SiteFacts::default() };
        for (node, tally) in tallies {
            self.account(node, tally);
            facts.add(tally);
        }
        facts.sum = self.sum.clone();
        facts
    }
}

/// A site at one time.
#[derive(Debug, Clone, Default)]
pub(in crate::node) struct SiteFacts {
    sum: Row,
    nodes: usize,
    unanswered: usize,
    seeds: usize,
    nearly_full: usize,
    faulty_rows: u64,
    headroom: Option<u64>,
    catalog: Option<(u64, u64)>,
    packages: BTreeMap<String, Totals>,
}

impl SiteFacts {
    fn add(&mut self, tally: &NodeTally) {
        self.seeds += usize::from(tally.role.is_seed());
        self.nearly_full += usize::from(tally.nearly_full);
        self.faulty_rows = self.faulty_rows.saturating_add(tally.faulty_rows);
        self.headroom = self.headroom.into_iter().chain(tally.headroom).min();
        // A node that nobody uses asks for no newer one: the site has the newest.
        self.catalog = self.catalog.max(tally.catalog);
        for (name, totals) in tally.packages.iter().take(TOP_OF_NODE).filter(|(it, _)| it.len() <= LONGEST) {
            self.packages.entry(name.clone()).or_default().add(totals);
        }
    }

    fn top(&self) -> Vec<(&String, &Totals)> {
        let mut packages: Vec<_> = self.packages.iter().collect();
        packages.sort_by_key(|(_, totals)| std::cmp::Reverse((totals.delivered, totals.wan_wire)));
        packages.truncate(TOP);
        packages
    }
}

/// All that is pushed of a site.
pub(in crate::node) fn site_families(facts: &SiteFacts) -> Vec<Family> {
    let (gauge, known) = (Family::gauge, Family::known);
    let top = facts.top();
    let packages = |name: &'static str, help, figure: fn(&Totals) -> u64| {
        let values = top.iter().map(|(name, totals)| ((*name).clone(), figure(totals)));
        Family::by(Kind::Gauge, name, help, "package", values)
    };
    let mut families = traffic("site_", &facts.sum);
    families.extend([
        gauge("site_nodes", "Nodes of the site whose figures are in.", facts.nodes as u64),
        gauge("site_nodes_unanswered", "Connected nodes that did not answer.", facts.unanswered as u64),
        gauge("site_nodes_disk_nearly_full", "Nodes whose disk is nearly full.", facts.nearly_full as u64),
        gauge("site_seeds", "Nodes with the role of a seed.", facts.seeds as u64),
        gauge("site_ledger_faulty_rows", "Rows of ledgers that do not add up: none.", facts.faulty_rows),
        known(
            "site_worst_disk_headroom_bytes",
            "Free above the reserve, on the disk with least.",
            facts.headroom,
        ),
        known("site_catalog_version", "The newest catalog's version.", facts.catalog.map(|it| it.0)),
        known(
            "site_catalog_expires_timestamp_seconds",
            "Until when it is good.",
            facts.catalog.map(|it| it.1),
        ),
        packages("site_package_day_delivered_bytes", "Handed to clients in the last day.", |it| it.delivered),
        packages("site_package_day_direct_bytes", "What each client would have fetched.", |it| it.direct),
        packages("site_package_day_wan_wire_bytes", "Read from the WAN in the last day.", |it| it.wan_wire),
    ]);
    families
}

/// The names of all that a site pushes, as a monitoring system knows them.
pub fn site_names() -> Vec<String> {
    site_families(&SiteFacts::default()).iter().map(Family::full_name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(run: u64, wan_wire: u64, told: u64) -> NodeTally {
        let row = |wan_wire| Row { totals: Totals { wan_wire, ..Totals::default() }, ..Row::default() };
        NodeTally { run, booked: row(wan_wire), told: row(told), ..NodeTally::default() }
    }

    fn ask(sums: &mut SiteSums, tallies: &[(&str, NodeTally)]) -> u64 {
        let tallies: Vec<_> =
            tallies.iter().map(|(node, tally)| ((*node).to_owned(), tally.clone())).collect();
        sums.take(&tallies, 0).sum.totals.wan_wire
    }

    #[test]
    fn the_sums_only_grow_and_nothing_counts_twice() {
        let mut first = SiteSums::default();
        assert_eq!(ask(&mut first, &[("a", tally(1, 100, 0)), ("b", tally(1, 10, 0))]), 110);
        assert_eq!(ask(&mut first, &[("a", tally(1, 150, 100))]), 160, "b is gone");
        assert_eq!(ask(&mut first, &[("a", tally(1, 150, 150)), ("b", tally(1, 13, 10))]), 163, "and back");
        assert_eq!(ask(&mut first, &[("a", tally(2, 7, 0)), ("b", tally(1, 13, 13))]), 170, "a began anew");
        // Another node takes over: from where the first one was.
        let mut second = SiteSums::default();
        first.hand_over();
        assert_eq!(ask(&mut second, &[("a", tally(2, 9, 7)), ("b", tally(1, 14, 13))]), 3);
        assert_eq!(ask(&mut first, &[("a", tally(2, 10, 9)), ("b", tally(1, 14, 14))]), 171);
    }

    #[test]
    fn the_number_of_series_is_bounded() {
        let package = |n: usize| (format!("p{n}"), Totals { delivered: n as u64, ..Totals::default() });
        let tally = NodeTally { packages: (0..500).map(package).collect(), ..NodeTally::default() };
        let facts = SiteSums::default().take(&[("a".into(), tally)], 1);
        let families = site_families(&facts);
        let samples: usize = families.iter().map(|family| family.samples.len()).sum();
        assert!(samples <= 3 + 3 + 3 * 12 + 10 + 8 + 3 * TOP, "{samples}");
    }
}
