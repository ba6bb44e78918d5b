//! What a bundle says of itself.

use bytes::Bytes;
use prost::Message;

use super::{BundleError, MAX_PACKAGES};
use crate::core::id::{ManifestId, PackageName, Version};
use crate::core::wire::bundle as proto;

/// The longest name of an origin that is kept, in characters.
const LONGEST_ORIGIN: usize = 500;

/// A package in a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: PackageName,
    /// Its version.
    pub version: Version,
    /// Which manifest.
    pub manifest: ManifestId,
    /// The older version whose chunks are left out.
    pub since: Option<Version>,
}

impl Entry {
    /// As `NAME@VERSION`.
    pub fn label(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

/// What follows in a bundle. Only for people, until the signed catalog bears it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Where the content was published.
    pub origin: String,
    /// The BLAKE3 hash of the root of trust that it was exported with.
    pub root: [u8; 32],
    /// The packages.
    pub packages: Vec<Entry>,
    /// Runs that follow.
    pub runs: u64,
    /// Bytes in them.
    pub bytes: u64,
}

impl Contents {
    /// The manifests that follow, in their order: each is there once.
    pub fn manifests(&self) -> Vec<ManifestId> {
        let mut ids: Vec<ManifestId> = Vec::new();
        let mut known = std::collections::HashSet::new();
        ids.extend(self.packages.iter().map(|entry| entry.manifest).filter(|id| known.insert(*id)));
        ids
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let package = |entry: &Entry| proto::Package {
            name: entry.name.to_string(),
            version: entry.version.to_string(),
            manifest: Bytes::copy_from_slice(entry.manifest.as_bytes()),
            since: entry.since.as_ref().map(ToString::to_string).unwrap_or_default(),
        };
        let contents = proto::Contents {
            format: 1,
            origin: self.origin.clone(),
            root: Bytes::copy_from_slice(&self.root),
            packages: self.packages.iter().map(package).collect(),
            runs: self.runs,
            bytes: self.bytes,
        };
        contents.encode_to_vec()
    }

    pub(super) fn decode(bytes: Bytes, at: u64) -> Result<Self, BundleError> {
        let damaged = |what| BundleError::Damaged { at, what };
        let contents = proto::Contents::decode(bytes).map_err(|_| damaged("no list of contents"))?;
        if contents.format != 1 {
            return Err(BundleError::UnknownFormat(contents.format));
        }
        if contents.packages.len() > MAX_PACKAGES {
            return Err(damaged("more packages than a bundle may have"));
        }
        let entry = |package: &proto::Package| {
            let since = match &*package.since {
                "" => None,
                since => Some(since.parse().ok()?),
            };
            let manifest = ManifestId::from_slice(&package.manifest)?;
            Some(Entry {
                name: package.name.parse().ok()?,
                version: package.version.parse().ok()?,
                manifest,
                since,
            })
        };
        let packages = contents.packages.iter().map(entry).collect::<Option<Vec<Entry>>>();
        Ok(Self {
            origin: contents.origin.chars().filter(|c| !c.is_control()).take(LONGEST_ORIGIN).collect(),
            root: contents.root[..].try_into().map_err(|_| damaged("a root of trust without its hash"))?,
            packages: packages.ok_or(damaged("a package without a proper name"))?,
            runs: contents.runs,
            bytes: contents.bytes,
        })
    }
}
