//! A bundle of what this node holds.

use std::fs::File;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};

use super::report::Written;
use crate::core::bundle::{BundleError, Form, Item, Layout, Run};
use crate::core::manifest::Manifest;
use crate::node::catalog::ResolveError;
use crate::node::{Node, blocking};
use crate::origin::bundle::{Choice, Chosen, IntoFile, assemble, choose, write_into};
use crate::origin::catalog::Published;
use crate::store::{Blob, Store, StoreError};

/// Runs that are read and hashed while others are written.
const AT_ONCE: usize = 2;

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// There is no such package.
    #[error(transparent)]
    Unresolved(#[from] ResolveError),
    /// It is not all here.
    #[error(
        "this node lacks {missing} bytes of {label}: have it here first ('branchline pin {label}'), or export it from the origin with --origin and --trust"
    )]
    NotHeld {
        /// As `NAME@VERSION`.
        label: String,
        /// In bytes.
        missing: u64,
    },
    /// What the older version has is not known here.
    #[error(
        "what {0} has is not known here, since nothing of it is held: export from the origin with --origin and --trust, or without --since"
    )]
    NoOlder(String),
    /// It is too much.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A chunk turned out damaged, or cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file that was handed over takes no more.
    #[error("cannot write the file: {0}")]
    File(#[from] std::io::Error),
    /// The agent is about to stop.
    #[error("the agent is stopping")]
    Stopping,
}

/// A bundle that is laid out, and not read yet.
pub struct Exported {
    node: Node,
    layout: Layout,
}

impl Exported {
    /// How long it will be, in bytes.
    pub fn length(&self) -> u64 {
        self.layout.length()
    }

    /// Its bytes; they end with an error if a chunk turns out damaged.
    pub fn stream(self) -> BoxStream<'static, Result<Bytes, StoreError>> {
        let (node, manifests) = (self.node, self.layout.manifests.clone());
        let payloads = stream::iter(self.layout.runs.clone()).map(move |run| {
            let (store, manifest) = (node.inner.store.clone(), manifests.get(run.manifest as usize).cloned());
            async move {
                let manifest = manifest.ok_or(StoreError::NotHeld(run.first))?;
                let read = blocking(move || content(&*store, &run, &manifest)).await;
                read.ok_or_else(|| StoreError::Unusable("the agent is stopping".into()))?
            }
        });
        assemble(self.layout, payloads.buffered(AT_ONCE)).boxed()
    }

    /// Writes it to a file, from where that stands.
    ///
    /// # Errors
    /// [`ExportError`]; a part of it may have been written.
    pub async fn write(self, file: File) -> Result<Written, ExportError> {
        let Self { node, layout } = self;
        let written = Written::new(layout.length(), &layout.contents);
        let store = node.inner.store.clone();
        let writing = blocking(move || {
            write_into(layout, file, |run, manifest, payload| {
                let content = content(&*store, run, manifest)?;
                if content.len() != payload.len() {
                    return Err(StoreError::NotHeld(run.first));
                }
                payload.copy_from_slice(&content);
                Ok(())
            })
        });
        match writing.await.ok_or(ExportError::Stopping)? {
            Ok(()) => Ok(written),
            Err(IntoFile::File(error)) => Err(ExportError::File(error)),
            Err(IntoFile::Content(error)) => Err(ExportError::Store(error)),
        }
    }
}

impl Node {
    /// Makes a bundle of packages that are complete here. Their chunks go into it as they are: packages
    /// hardly compress, and whoever waits for a disk would wait longer for that.
    ///
    /// # Errors
    /// [`ExportError`].
    pub async fn export(&self, choices: &[Choice]) -> Result<Exported, ExportError> {
        let from = self.inner.config.provenance().ok_or(ResolveError::NoOrigin)?;
        let catalog = self.catalog().needed()?;
        let chosen = choose(&catalog, choices).map_err(ResolveError::from)?;
        let (node, blobs) = (self.clone(), chosen.clone());
        let found =
            blocking(move || blobs.iter().map(|chosen| node.item(chosen)).collect::<Result<Vec<_>, _>>());
        let items = found.await.ok_or(ExportError::Stopping)??;
        let files = catalog.files().iter().map(|(name, content)| (name.clone(), content.clone()));
        let layout = Layout::new(from, files, items, Form::Plain)?;
        Ok(Exported { node: self.clone(), layout })
    }

    fn item(&self, chosen: &Chosen) -> Result<Item, ExportError> {
        let entry = chosen.entry();
        let (manifest, missing) = match self.held_of(&chosen.published) {
            Some(blob) => {
                let (manifest, held) = (blob.manifest().clone(), blob.held());
                let missing = manifest.size() - manifest.bytes_of(held.iter());
                (Some(manifest), missing)
            }
            None => (None, chosen.published.size),
        };
        let Some(manifest) = manifest.filter(|_| missing == 0) else {
            return Err(ExportError::NotHeld { label: entry.label(), missing });
        };
        let without = match &chosen.since {
            Some((version, older)) => {
                let known = self.held_of(older).map(|blob| blob.manifest().clone());
                let unknown = || ExportError::NoOlder(format!("{}@{version}", chosen.name));
                Some(known.ok_or_else(unknown)?)
            }
            None => None,
        };
        Ok(Item { entry, manifest, without })
    }

    fn held_of(&self, published: &Published) -> Option<Arc<dyn Blob>> {
        let blob = self.inner.store.get(&published.blob)?;
        (blob.manifest().id() == published.manifest).then_some(blob)
    }
}

/// The content of a run.
fn content(store: &dyn Store, run: &Run, manifest: &Manifest) -> Result<Bytes, StoreError> {
    let blob = store.get(&manifest.blob()).ok_or(StoreError::NotHeld(run.first))?;
    let whole = blob.read_run(run.first, u64::from(run.length))?;
    if whole.len() == run.length as usize {
        return Ok(whole);
    }
    // One of its chunks is gone: which one is told by reading it.
    let mut content = BytesMut::from(&whole[..]);
    while content.len() < run.length as usize {
        let start = manifest.chunk(run.first).map_or(0, |chunk| chunk.offset);
        let next = manifest.chunk_at(start + content.len() as u64).ok_or(StoreError::NotHeld(run.first))?;
        content.extend_from_slice(&blob.read_run(next, u64::from(run.length) - content.len() as u64)?);
    }
    Ok(content.freeze())
}
