//! `GET /api/v1/packages/NAME/history`: where the channels of a package point, and what happened to it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::Node;
use crate::core::id::PackageName;
use crate::origin::Catalog;
use crate::origin::history::Event;

/// What happened to a package.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct History {
    /// The package.
    pub name: String,
    /// The version of the catalog that says so.
    pub catalog: u64,
    /// Where its channels point.
    pub channels: BTreeMap<String, String>,
    /// Its retired versions, and since when.
    pub retired: BTreeMap<String, String>,
    /// Moves of its channels and retirements, the last ones, the oldest first.
    pub events: Vec<Event>,
}

impl History {
    /// As this catalog says; `None` if it has no such package.
    pub fn of(catalog: &Catalog, name: &PackageName) -> Option<Self> {
        let mut found = Self {
            name: name.to_string(),
            catalog: catalog.version,
            channels: BTreeMap::new(),
            retired: BTreeMap::new(),
            events: catalog.history(name).to_vec(),
        };
        let mut known = false;
        for (version, it) in catalog.versions(name) {
            known = true;
            let channels = it.channels.iter().map(|channel| (channel.to_string(), version.to_string()));
            found.channels.extend(channels);
            found.retired.extend(it.retired.map(|at| (version.to_string(), at.to_string())));
        }
        known.then_some(found)
    }
}

impl Node {
    /// What happened to a package, as far as this node's catalog knows.
    pub fn history(&self, name: &PackageName) -> Option<History> {
        History::of(&*self.catalog().current()?, name)
    }
}
