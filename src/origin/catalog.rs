//! The signed catalog: which package version is which blob.
//!
//! A TUF repository (crate `tough`), so its files prove themselves: they may come from the origin,
//! from any peer, or from this node's own disk. The [`Keeper`](super::Keeper) holds the newest that it has
//! verified, with the raw files, to hand on.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tough::schema::Targets;

use super::history::{self, Event};
use crate::core::id::{BlobId, Channel, ManifestId, PackageName, RecipeId, Version};
use crate::core::lapse::Lapse;

/// One published version, as the catalog says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The manifest's name.
    pub manifest: ManifestId,
    /// The blob's name.
    pub blob: BlobId,
    /// The blob's length, in bytes.
    pub size: u64,
    /// The blob's SHA-256, in hexadecimal digits.
    pub sha256: String,
    /// The channels that point here.
    #[serde(default)]
    pub channels: Vec<Channel>,
    /// When it was published.
    pub published: Timestamp,
    /// Since when it is retired: no channel points here, and who does not hold it does not get it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<Timestamp>,
    /// What says which recipes there are for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipes: Option<RecipeId>,
}

/// A verified catalog.
#[derive(Debug, Clone)]
pub struct Catalog {
    /// Counts up with each change.
    pub version: u64,
    /// Until when it is good.
    pub expires: Timestamp,
    packages: BTreeMap<PackageName, BTreeMap<Version, Published>>,
    history: BTreeMap<PackageName, Vec<Event>>,
    /// Looked up for every transfer.
    labels: HashMap<BlobId, String>,
    pub(super) files: BTreeMap<String, Bytes>,
}

/// Why the catalog has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// No such package.
    #[error("there is no package {name} in the catalog{hint}")]
    Package {
        /// What was asked for.
        name: String,
        /// The nearest name, as a question.
        hint: String,
    },
    /// No such version or channel of it.
    #[error("package {name} has no version or channel {wanted}; it has {known}")]
    Version {
        /// The package.
        name: String,
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: String,
    },
}

impl Catalog {
    pub(super) fn new(
        version: u64,
        expires: Timestamp,
        targets: &Targets,
        files: BTreeMap<String, Bytes>,
    ) -> Self {
        let packages = packages(targets);
        let history = packages.keys().map(|name| (name.clone(), history::of(targets, name))).collect();
        let mut labels = HashMap::new();
        for (name, versions) in &packages {
            for (version, it) in versions {
                labels.entry(it.blob).or_insert_with(|| format!("{name}@{version}"));
            }
        }
        Self { version, expires, packages, history, labels, files }
    }

    /// Every version, by name.
    pub fn packages(&self) -> impl Iterator<Item = (&PackageName, &Version, &Published)> {
        self.packages
            .iter()
            .flat_map(|(name, versions)| versions.iter().map(move |(version, it)| (name, version, it)))
    }

    /// The versions of a package; none if there is no such package.
    pub fn versions(&self, name: &PackageName) -> impl Iterator<Item = (&Version, &Published)> {
        self.packages.get(name).into_iter().flatten()
    }

    /// What happened to a package's channels and versions of late, the oldest first.
    pub fn history(&self, name: &PackageName) -> &[Event] {
        self.history.get(name).map_or(&[], Vec::as_slice)
    }

    /// The other versions of the package that this blob is a version of.
    pub fn versions_beside(&self, blob: &BlobId) -> impl Iterator<Item = &Published> {
        let label = self.labels.get(blob).and_then(|label| label.split_once('@'));
        let versions = label.and_then(|(name, _)| self.packages.get(&name.parse::<PackageName>().ok()?));
        versions.into_iter().flat_map(|versions| versions.values()).filter(move |it| it.blob != *blob)
    }

    /// What says which recipes there are for a blob, if there are any.
    pub fn recipes_of(&self, blob: &BlobId) -> Option<RecipeId> {
        self.entry_of(blob)?.recipes
    }

    /// The manifest of a blob.
    pub fn manifest_of(&self, blob: &BlobId) -> Option<ManifestId> {
        Some(self.entry_of(blob)?.manifest)
    }

    fn entry_of(&self, blob: &BlobId) -> Option<&Published> {
        let (name, version) = self.labels.get(blob)?.split_once('@')?;
        self.packages.get(&name.parse::<PackageName>().ok()?)?.get(&version.parse::<Version>().ok()?)
    }

    /// The first version that is this blob, as `NAME@VERSION`.
    pub fn label_of(&self, blob: &BlobId) -> Option<String> {
        self.labels.get(blob).cloned()
    }

    /// The same, of a blob of which only the short form is known.
    pub fn label_of_short(&self, short: &str) -> Option<String> {
        let found = self.labels.iter().find(|(blob, _)| blob.short() == short);
        found.map(|(_, label)| label.clone())
    }

    /// Whether it is past its time.
    pub fn is_expired(&self) -> bool {
        self.expires < Timestamp::now()
    }

    /// Whether it is past its time by less than this, if at all.
    pub fn is_good_within(&self, grace: Lapse) -> bool {
        let end = self.expires.saturating_add(grace.signed());
        end.is_ok_and(|end| Timestamp::now() <= end)
    }

    /// The raw files, to hand on.
    pub fn files(&self) -> &BTreeMap<String, Bytes> {
        &self.files
    }

    /// A version by its own name, retired or not, else by a channel's; without either, `stable`, else the
    /// version that was published last and is not retired.
    ///
    /// # Errors
    /// [`Unresolved`], with what there is instead.
    pub fn resolve(
        &self,
        name: &str,
        wanted: Option<&str>,
    ) -> Result<(PackageName, Version, Published), Unresolved> {
        let found = name.parse::<PackageName>().ok().and_then(|name| self.packages.get_key_value(&name));
        let Some((name, versions)) = found else {
            let near = self.packages.keys().map(|known| (strsim::jaro_winkler(known.as_str(), name), known));
            let near = near.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0));
            let hint = near.map_or(String::new(), |(_, known)| format!("; did you mean {known}?"));
            return Err(Unresolved::Package { name: name.chars().take(100).collect(), hint });
        };
        let in_channel = |channel: &str| {
            versions.iter().find(|(_, it)| it.channels.iter().any(|known| known.as_str() == channel))
        };
        let found = match wanted {
            None | Some("latest") => {
                let offered = versions.iter().filter(|(_, it)| it.retired.is_none());
                in_channel("stable").or_else(|| offered.max_by_key(|(_, it)| it.published))
            }
            Some(wanted) => {
                versions.iter().find(|(version, _)| version.as_str() == wanted).or_else(|| in_channel(wanted))
            }
        };
        let (version, it) = found.ok_or_else(|| Unresolved::Version {
            name: name.to_string(),
            wanted: wanted.unwrap_or("latest").chars().take(100).collect(),
            known: describe(versions),
        })?;
        Ok((name.clone(), version.clone(), it.clone()))
    }
}

fn describe(versions: &BTreeMap<Version, Published>) -> String {
    let one = |(version, it): (&Version, &Published)| {
        let mut marks: Vec<&str> = it.channels.iter().map(Channel::as_str).collect();
        marks.extend(it.retired.map(|_| "retired"));
        if marks.is_empty() { version.to_string() } else { format!("{version} ({})", marks.join(", ")) }
    };
    let mut known: Vec<String> = versions.iter().rev().take(10).map(one).collect();
    if versions.len() > known.len() {
        known.push(format!("and {} more", versions.len() - known.len()));
    }
    known.join(", ")
}

pub(super) fn packages(targets: &Targets) -> BTreeMap<PackageName, BTreeMap<Version, Published>> {
    let mut packages: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for (name, target) in &targets.targets {
        let parsed = name.raw().split_once('/').and_then(|(name, version)| {
            let custom = serde_json::to_value(&target.custom).ok()?;
            let published = serde_json::from_value::<Published>(custom).ok()?;
            Some((name.parse::<PackageName>().ok()?, version.parse::<Version>().ok()?, published))
        });
        match parsed {
            Some((name, version, published)) => {
                packages.entry(name).or_default().insert(version, published);
            }
            None => tracing::warn!(name = name.raw(), "a catalog entry that this version does not know"),
        }
    }
    packages
}
