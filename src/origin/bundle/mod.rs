//! Bundles made from an origin: packs are read by range, and every chunk is checked on its way.

mod file;
mod packs;
mod stream;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};

use super::catalog::{Published, Unresolved};
use super::{Address, Catalog, Fetch, Keeper, Origin, OriginError};
use crate::core::bundle::{Contents, Entry, Form, Item, Layout};
use crate::core::id::{PackageName, Version};
use crate::core::manifest::{MAX_MANIFEST, Manifest};
use crate::core::orders::Selector;
pub use file::{IntoFile, write_into};
pub use stream::assemble;

/// A package that is to go into a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Which.
    pub package: Selector,
    /// Without what this older version of it has.
    pub since: Option<Version>,
}

/// A choice, found in the catalog.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The package.
    pub name: PackageName,
    /// Its version.
    pub version: Version,
    /// What the catalog says of it.
    pub published: Published,
    /// The older version that is left out.
    pub since: Option<(Version, Published)>,
}

impl Chosen {
    /// What the bundle says of it.
    pub fn entry(&self) -> Entry {
        Entry {
            name: self.name.clone(),
            version: self.version.clone(),
            manifest: self.published.manifest,
            since: self.since.as_ref().map(|(version, _)| version.clone()),
        }
    }
}

/// Finds what was chosen; what was chosen twice is there once.
///
/// # Errors
/// [`Unresolved`], with what there is instead.
pub fn choose(catalog: &Catalog, choices: &[Choice]) -> Result<Vec<Chosen>, Unresolved> {
    let mut chosen: Vec<Chosen> = Vec::new();
    for Choice { package, since } in choices {
        let wanted = package.wanted.as_ref().map(Version::as_str);
        let (name, version, published) = catalog.resolve(package.name.as_str(), wanted)?;
        let older = |since: &Version| catalog.resolve(name.as_str(), Some(since.as_str()));
        let since =
            since.as_ref().map(older).transpose()?.map(|(_, version, published)| (version, published));
        if !chosen.iter().any(|known| known.name == name && known.version == version) {
            chosen.push(Chosen { name, version, published, since });
        }
    }
    Ok(chosen)
}

/// A bundle of an origin's packages, that is not made yet.
pub struct Plan {
    origin: Origin,
    layout: Layout,
}

impl Plan {
    /// Lays out a bundle.
    ///
    /// # Errors
    /// [`OriginError`], if the catalog is not signed by the owner of `trust`, or lacks a package.
    pub async fn new(origin: &Origin, trust: Bytes, choices: &[Choice]) -> Result<Self, OriginError> {
        let invalid = |error: &dyn std::fmt::Display| OriginError::Invalid(error.to_string());
        let scratch = tempfile::tempdir().map_err(|error| OriginError::Failed(error.to_string()))?;
        let root = *blake3::hash(&trust).as_bytes();
        let keeper = Keeper::open(scratch.path(), Some(trust)).await?;
        let catalog = keeper.refresh(Fetch::Origin(origin.clone())).await?;
        let mut items = Vec::new();
        for chosen in choose(&catalog, choices).map_err(|error| invalid(&error))? {
            let manifest = manifest(origin, &chosen.published).await?;
            let without = match &chosen.since {
                Some((_, published)) => Some(self::manifest(origin, published).await?),
                None => None,
            };
            items.push(Item { entry: chosen.entry(), manifest, without });
        }
        let files = catalog.files().iter().map(|(name, content)| (name.clone(), content.clone()));
        let layout = Layout::new((origin.address().to_string(), root), files, items, Form::Packed);
        Ok(Self { origin: origin.clone(), layout: layout.map_err(|error| invalid(&error))? })
    }

    /// What will be in it.
    pub fn contents(&self) -> &Contents {
        &self.layout.contents
    }

    /// How long it will be, in bytes.
    pub fn length(&self) -> u64 {
        self.layout.length()
    }

    /// The bundle as a stream of bytes: whoever writes it down takes them as they come. It ends with an
    /// error if a pack cannot be read or is damaged.
    pub fn stream(self) -> BoxStream<'static, Result<Bytes, OriginError>> {
        let payloads = packs::payloads(self.origin, &self.layout);
        assemble(self.layout, payloads).boxed()
    }

    /// Where its packs lie, if that is a folder here: then it can be written by [`Plan::write`].
    pub fn folder(&self) -> Option<PathBuf> {
        match self.origin.address() {
            Address::Folder(path) => Some(path.clone()),
            _ => None,
        }
    }

    /// Writes the bundle from a folder of this machine into a file, from where that stands; blocks.
    ///
    /// # Errors
    /// [`IntoFile`], with what a pack or the file has to say; a part of the bundle may have been written.
    pub fn write(self, folder: &std::path::Path, file: std::fs::File) -> Result<(), IntoFile<OriginError>> {
        let packs = packs::Folder::new(folder);
        write_into(self.layout, file, |run, manifest, payload| packs.read(run, manifest, payload))
    }
}

async fn manifest(origin: &Origin, published: &Published) -> Result<Arc<Manifest>, OriginError> {
    let id = published.manifest;
    let encoded = origin.read(&format!("manifests/{id}"), MAX_MANIFEST as u64).await?;
    let manifest = Manifest::decode(id, encoded);
    manifest.map(Arc::new).map_err(|error| OriginError::Invalid(error.to_string()))
}
