//! `GET /api/v1/site`: the nodes of the site, what they hold, and which packages would survive the loss
//! of how many of them.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::neighbours::{Holding, Inventory};
use super::super::{Node, Role};

/// The most that the list of one node's blobs takes in a report, in bytes. A hub sends the reports of
/// all: 400 of them fit into the longest that is read.
const MOST_HOLDS: usize = 64 << 10;
/// What an entry of that list takes beside its package's name.
const ENTRY: usize = 64;

/// The site, as far as it answers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Site {
    /// Its name.
    pub site: String,
    /// Its nodes that answered, this one first.
    pub nodes: Vec<SiteNode>,
    /// Every version of the catalog, and what nodes hold beside that.
    pub packages: Vec<Coverage>,
    /// Nodes that did not answer: what they hold is not counted.
    pub unanswered: Vec<String>,
}

/// A node of the site.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SiteNode {
    /// Its node id.
    pub node: String,
    /// Its host name.
    pub host: String,
    /// It is the one that was asked.
    pub me: bool,
    /// Its software's version.
    pub version: String,
    /// What it is to its site.
    pub role: Role,
    /// Its weight in the ranking of leads, as its condition leaves it.
    pub weight: u32,
    /// What lowers it, in words.
    pub weight_reasons: Vec<String>,
    /// It has had time to find its site.
    pub ready: bool,
    /// It is connected to all, and may lead.
    pub hub: bool,
    /// The last round trip from this node to it, in milliseconds, if the two are connected.
    pub latency_ms: Option<f64>,
    /// Seconds since its start.
    pub uptime_s: u64,
    /// Bytes that its blobs take when complete.
    pub bytes: u64,
    /// The most that they may take.
    pub quota: u64,
    /// What it holds, by name.
    pub holds: Vec<HeldPackage>,
    /// Blobs beyond those. Of many, a node reports the ones that were used last.
    pub left_out: usize,
}

/// A package that a node holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HeldPackage {
    /// `NAME@VERSION`, or the beginning of the blob's name in brackets, if the catalog lists it no more.
    pub package: String,
    /// All chunks are there.
    pub complete: bool,
}

/// Who holds a package.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// `NAME@VERSION`, or the beginning of the blob's name in brackets, if the catalog lists it no more.
    pub package: String,
    /// The channels that point at it.
    pub channels: Vec<String>,
    /// Since when it is retired; none if it is not.
    #[serde(default)]
    pub retired: Option<String>,
    /// The version by whose name nodes report this content, if another version is the same.
    #[serde(default)]
    pub same_as: Option<String>,
    /// Its length, in bytes.
    pub size: u64,
    /// Nodes that hold all of it.
    pub complete: usize,
    /// Nodes that hold a part of it.
    pub partial: usize,
    /// How many nodes may be lost, whichever they are, and one that serves others still holds all of
    /// it; none if no such node does. What is put together from parts is not counted.
    pub survives: Option<usize>,
}

impl Node {
    /// The site, as it was at most `max_age` ago, with at most so many packages named for each node.
    pub async fn site(&self, max_age: Duration, holds: usize) -> Site {
        let others = self.inventories(max_age).await;
        let latency: HashMap<String, Option<Duration>> =
            self.inner.net.contacts().into_iter().map(|it| (it.node.to_string(), it.latency)).collect();
        let (me, own) = (self.me().to_string(), self.own_inventory());
        let listed = self.listed();
        let everyone = others.nodes.iter().map(|(node, inventory)| (node, inventory));
        let everyone: Vec<_> = std::iter::once((&me, &own)).chain(everyone).collect();
        let nodes = everyone.iter().map(|(node, inventory)| {
            let latency = latency.get(*node).copied().flatten();
            SiteNode { me: **node == me, ..site_node(node, inventory, latency, holds) }
        });
        Site {
            site: self.inner.config.site.to_string(),
            nodes: nodes.collect(),
            packages: coverage(listed, everyone.iter().map(|(_, inventory)| *inventory)),
            unanswered: others.unanswered.clone(),
        }
    }

    /// What this node tells of itself.
    pub(in crate::node) fn own_inventory(&self) -> Inventory {
        let (store, standing) = (self.store_status(), &self.inner.standing);
        let (holds, left_out) = self.holdings();
        Inventory {
            host: gethostname::gethostname().to_string_lossy().into_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            role: standing.role(),
            weight: standing.effective_weight(),
            weight_reasons: standing.reasons(),
            ready: self.is_ready(),
            hub: self.inner.net.is_hub(),
            uptime_s: self.inner.started.elapsed().as_secs(),
            bytes: store.bytes,
            quota: store.quota,
            holds,
            left_out,
            keeps: self.own_keeping(),
        }
    }

    /// What fits into a report of what is held, what was used last first; and how much does not fit.
    fn holdings(&self) -> (Vec<Holding>, usize) {
        let mut held = self.inner.store.list();
        held.sort_by_key(|held| std::cmp::Reverse(held.last_used));
        let count = held.len();
        let holdings = held.into_iter().map(|held| Holding {
            package: self.label(&held.blob),
            size: held.size,
            complete: held.complete,
        });
        let mut room = MOST_HOLDS;
        let fits = |holding: &Holding| {
            let left = room.checked_sub(ENTRY + holding.package.len());
            room = left.unwrap_or(0);
            left.is_some()
        };
        let holdings: Vec<Holding> = holdings.take_while(fits).collect();
        let left_out = count - holdings.len();
        (holdings, left_out)
    }

    /// Every version of the catalog, with what the ledger calls its blob: two versions may be one.
    fn listed(&self) -> Vec<(String, Coverage)> {
        let catalog = self.catalog().current();
        let versions = catalog.iter().flat_map(|catalog| catalog.packages());
        let listed = versions.map(|(name, version, it)| {
            let package = format!("{name}@{version}");
            let (channels, label) =
                (it.channels.iter().map(ToString::to_string).collect(), self.label(&it.blob));
            let same_as = (label != package).then(|| label.clone());
            let retired = it.retired.map(|at| at.to_string());
            (label, Coverage { package, channels, retired, same_as, size: it.size, ..Coverage::default() })
        });
        listed.collect()
    }
}

fn site_node(node: &str, inventory: &Inventory, latency: Option<Duration>, most: usize) -> SiteNode {
    let holds = inventory.holds.iter();
    let holds = holds.map(|it| HeldPackage { package: it.package.clone(), complete: it.complete });
    let mut holds: Vec<HeldPackage> = holds.collect();
    holds.sort();
    let beyond = holds.len().saturating_sub(most);
    holds.truncate(most);
    SiteNode {
        node: node.to_owned(),
        host: inventory.host.clone(),
        me: false,
        version: inventory.version.clone(),
        role: inventory.role,
        weight: inventory.weight,
        weight_reasons: inventory.weight_reasons.clone(),
        ready: inventory.ready,
        hub: inventory.hub,
        latency_ms: latency.map(|latency| latency.as_secs_f64() * 1e3),
        uptime_s: inventory.uptime_s,
        bytes: inventory.bytes,
        quota: inventory.quota,
        holds,
        left_out: inventory.left_out + beyond,
    }
}

/// Counts who holds what: of the versions that are listed, and of what else nodes hold.
fn coverage<'a>(
    listed: Vec<(String, Coverage)>,
    nodes: impl Iterator<Item = &'a Inventory>,
) -> Vec<Coverage> {
    #[derive(Default)]
    struct Count {
        size: u64,
        complete: usize,
        serving: usize,
        partial: usize,
    }
    let mut counts: BTreeMap<&str, Count> = BTreeMap::new();
    for inventory in nodes {
        for it in &inventory.holds {
            let count = counts.entry(&it.package).or_default();
            count.size = count.size.max(it.size);
            match it.complete {
                true => count.complete += 1,
                false => count.partial += 1,
            }
            // A leech keeps what it holds to itself.
            count.serving += usize::from(it.complete && inventory.role.shares());
        }
    }
    let count_in = |coverage: &mut Coverage, count: &Count| {
        coverage.complete = count.complete;
        coverage.partial = count.partial;
        coverage.survives = count.serving.checked_sub(1);
    };
    let mut packages = Vec::with_capacity(listed.len());
    let mut known = std::collections::HashSet::new();
    for (label, mut coverage) in listed {
        if let Some((label, count)) = counts.get_key_value(label.as_str()) {
            count_in(&mut coverage, count);
            known.insert(*label);
        }
        packages.push(coverage);
    }
    for (label, count) in counts.iter().filter(|(label, _)| !known.contains(*label)) {
        let mut coverage = Coverage { package: (*label).to_owned(), size: count.size, ..Coverage::default() };
        count_in(&mut coverage, count);
        packages.push(coverage);
    }
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(role: Role, holds: &[(&str, bool)]) -> Inventory {
        let holds = holds.iter().map(|(package, complete)| Holding {
            package: (*package).to_owned(),
            size: 9,
            complete: *complete,
        });
        Inventory { role, holds: holds.collect(), ..Inventory::default() }
    }

    #[test]
    fn a_package_survives_the_loss_of_all_but_one_that_serves_it() {
        let nodes = [
            node(Role::Normal, &[("a@1", true), ("b@1", true), ("(old)", true)]),
            node(Role::Seed, &[("a@1", true), ("b@1", false)]),
            node(Role::Leech, &[("a@1", true), ("c@1", true)]),
        ];
        let listed = ["a@1", "b@1", "c@1", "d@1"].map(|package| {
            (package.to_owned(), Coverage { package: package.to_owned(), size: 9, ..Coverage::default() })
        });
        // The same blob under another version.
        let mut listed = listed.to_vec();
        listed.push(("a@1".into(), Coverage { package: "a@2".into(), ..Coverage::default() }));
        let found = coverage(listed, nodes.iter());
        let found: Vec<_> =
            found.iter().map(|it| (it.package.as_str(), it.complete, it.partial, it.survives)).collect();
        let expected = [
            ("a@1", 3, 0, Some(1)),
            ("b@1", 1, 1, Some(0)),
            ("c@1", 1, 0, None),
            ("d@1", 0, 0, None),
            ("a@2", 3, 0, Some(1)),
            ("(old)", 1, 0, Some(0)),
        ];
        assert_eq!(found, expected);
    }
}
