//! What this node is to its site: the role that its operator gave it, and what its condition
//! leaves of its weight in the ranking of leads.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::condition::{self, Condition};
use super::{Config, Node, blocking};
use crate::core::flight::Input;
use crate::store::Store;

/// How often the host is looked at.
const LOOK: Duration = Duration::from_secs(15);
/// How much rather than others a seed leads.
const SEED: u32 = 4;

/// A node's role at its site.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Leads rather than others, and keeps more: a machine that is always on.
    Seed,
    /// Takes and gives like its neighbours.
    #[default]
    Normal,
    /// Takes, and gives nothing: it never leads others, and serves nobody.
    Leech,
    /// As a seed; and it makes recipes of upstreams' objects, for the sites whose upstream its gateway is.
    Hub,
}

impl Role {
    /// As it is written in a configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seed => "seed",
            Self::Normal => "normal",
            Self::Leech => "leech",
            Self::Hub => "hub",
        }
    }

    /// It is always on, and keeps more than others.
    pub fn is_seed(self) -> bool {
        matches!(self, Self::Seed | Self::Hub)
    }

    /// It passes on what it holds, and leads others.
    pub fn shares(self) -> bool {
        self != Self::Leech
    }

    /// The weight that a node of this role has where another has `weight`.
    fn weight(self, weight: u32) -> u32 {
        match self {
            Self::Seed | Self::Hub => weight.saturating_mul(SEED),
            Self::Normal => weight,
            Self::Leech => 0,
        }
    }
}

/// The role, the weight, and what lowers it at the moment.
#[derive(Debug)]
pub(super) struct Standing {
    role: Role,
    weight: u32,
    metered: bool,
    conditions: Mutex<Vec<Condition>>,
}

impl Standing {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            role: config.role,
            weight: config.role.weight(config.weight),
            metered: config.metered,
            conditions: Mutex::default(),
        }
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    /// By the role, under the best of conditions.
    pub(super) fn weight(&self) -> u32 {
        self.weight
    }

    /// What lowers the weight at the moment.
    pub(super) fn conditions(&self) -> Vec<Condition> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the others are told.
    pub(super) fn effective_weight(&self) -> u32 {
        condition::effective_weight(self.weight, &self.conditions())
    }

    /// Looks at the host, whose system lies below `root`, and at the disk. Blocks.
    pub(super) fn look(&self, root: &Path, store: &dyn Store) {
        let mut conditions = condition::of_host(root);
        let others =
            [(self.metered, Condition::Metered), (store.is_nearly_full(), Condition::DiskNearlyFull)];
        conditions.extend(others.into_iter().filter_map(|(holds, condition)| holds.then_some(condition)));
        *self.conditions.lock().unwrap_or_else(PoisonError::into_inner) = conditions;
    }

    /// What lowers the weight, in words.
    pub(super) fn reasons(&self) -> Vec<String> {
        self.conditions().into_iter().map(|condition| condition.as_str().to_owned()).collect()
    }
}

impl Node {
    /// What it counts for when a lead is sought: only hubs lead.
    pub(super) fn weight_to_lead(&self) -> u32 {
        if self.inner.net.is_hub() { self.inner.standing.effective_weight() } else { 0 }
    }
}

/// Looks at the host now and then, and tells the site and the coordinator what that changes.
pub(super) async fn keep(node: Node) {
    let standing = node.inner.standing.clone();
    let mut told = standing.effective_weight();
    loop {
        tokio::time::sleep(LOOK).await;
        let (standing, store) = (standing.clone(), node.inner.store.clone());
        let look = move || {
            standing.look(Path::new("/"), &*store);
            (standing.effective_weight(), standing.reasons())
        };
        let Some((weight, reasons)) = blocking(look).await else { continue };
        if weight != told {
            told = weight;
            tracing::info!(weight, reasons = reasons.join(", "), "this node's readiness to lead has changed");
            node.inner.net.set_weight(weight).await;
            let weight = node.weight_to_lead();
            node.inner.inputs.send(Input::Weight { weight }).await.ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    fn standing(role: Role, metered: bool) -> Standing {
        Standing { role, weight: role.weight(100), metered, conditions: Mutex::default() }
    }

    #[test]
    fn role_and_condition_make_the_weight() {
        let (store, root) = (MemoryStore::new(1), tempfile::tempdir().expect("a folder"));
        for (role, metered, weight) in [
            (Role::Seed, false, 400),
            (Role::Seed, true, 40),
            (Role::Normal, false, 100),
            (Role::Normal, true, 10),
            (Role::Leech, false, 0),
        ] {
            let standing = standing(role, metered);
            standing.look(root.path(), &store);
            assert_eq!(standing.effective_weight(), weight, "{role:?}");
            assert_eq!(standing.reasons(), if metered { vec!["metered"] } else { vec![] });
        }
    }
}
