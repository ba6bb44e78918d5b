//! What the blob files do not say by themselves: which blob holds a chunk, when a blob was last
//! used, and what is pinned. In sled, and only as good as a cache: pins apart, all of it can be
//! rebuilt from the files.
//!
//! sled 0.34.7, and not the 1.0 alpha: both came through kills in mid-write without a loss (see
//! the README), and 0.34 is the release that its author calls stable. An open report of
//! corruption after an abrupt container stop (spacejam/sled#1533) is why nothing relies on it.

use std::fmt::Display;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use super::{StoreError, database};
use crate::core::id::{BlobId, ChunkId};
use crate::core::manifest::Manifest;

/// Bytes of page cache: the index of some 100 GB of content fits.
const CACHE: u64 = 8 << 20;

/// A blob's record.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) last_used: u64,
    pub(super) pinned: bool,
    /// Its chunks are in the index.
    pub(super) indexed: bool,
    /// When all of it was last hashed.
    #[serde(default)]
    pub(super) verified: u64,
    /// The package that its room is counted for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<String>,
}

#[derive(Debug)]
pub(super) struct Index {
    db: sled::Db,
    chunks: sled::Tree,
    blobs: sled::Tree,
    unsaved: AtomicBool,
}

impl Index {
    /// Opens the index; one that cannot be read is put aside and begun anew.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let unusable =
            |error: &dyn Display| StoreError::Unusable(format!("the index cannot be opened: {error}"));
        let db = database::open(path, CACHE, |error| {
            tracing::warn!(%error, "the index is damaged and will be rebuilt from the blob files");
            std::fs::remove_dir_all(path).or_else(|_| std::fs::remove_file(path)).ok();
        });
        let db = db.map_err(|error| unusable(&error))?;
        let chunks = db.open_tree("chunks").map_err(|error| unusable(&error))?;
        let blobs = db.open_tree("blobs").map_err(|error| unusable(&error))?;
        Ok(Self { db, chunks, blobs, unsaved: AtomicBool::new(true) })
    }

    /// A blob that holds this chunk, and the chunk's index there.
    pub(super) fn place(&self, chunk: &ChunkId) -> Option<(BlobId, u32)> {
        let place = self.chunks.get(chunk.as_bytes()).ok()??;
        let (blob, index) = place.split_at_checked(32)?;
        Some((BlobId::from_slice(blob)?, u32::from_le_bytes(index.try_into().ok()?)))
    }

    /// Enters all chunks of a complete blob.
    pub(super) fn add_chunks(&self, manifest: &Manifest) {
        let mut batch = sled::Batch::default();
        for (index, chunk) in (0u32..).zip(manifest.chunks()) {
            let place = [&manifest.blob().as_bytes()[..], &index.to_le_bytes()].concat();
            batch.insert(&chunk.id.as_bytes()[..], place);
        }
        self.changed(self.chunks.apply_batch(batch));
        let mut record = self.record(&manifest.blob()).unwrap_or_default();
        record.indexed = true;
        self.set_record(&manifest.blob(), &record);
    }

    /// Takes out a blob that is going.
    pub(super) fn remove(&self, blob: &BlobId, manifest: Option<&Manifest>) {
        self.forget_chunks(blob, manifest.into_iter().flat_map(Manifest::chunks).map(|chunk| &chunk.id));
        self.changed(self.blobs.remove(blob.as_bytes()));
    }

    /// Takes out chunks that a blob does not hold any more.
    pub(super) fn forget_chunks<'a>(&self, blob: &BlobId, chunks: impl Iterator<Item = &'a ChunkId>) {
        for chunk in chunks {
            if self.place(chunk).is_some_and(|(place, _)| place == *blob) {
                self.changed(self.chunks.remove(chunk.as_bytes()));
            }
        }
    }

    pub(super) fn record(&self, blob: &BlobId) -> Option<Record> {
        serde_json::from_slice(&self.blobs.get(blob.as_bytes()).ok()??).ok()
    }

    pub(super) fn set_record(&self, blob: &BlobId, record: &Record) {
        if let Ok(bytes) = serde_json::to_vec(record) {
            self.changed(self.blobs.insert(blob.as_bytes(), bytes));
        }
    }

    pub(super) fn is_unsaved(&self) -> bool {
        self.unsaved.load(Ordering::Relaxed)
    }

    pub(super) fn flush(&self) {
        if self.unsaved.swap(false, Ordering::Relaxed) {
            self.warn(self.db.flush());
        }
    }

    fn changed<T>(&self, result: sled::Result<T>) {
        self.unsaved.store(true, Ordering::Relaxed);
        self.warn(result);
    }

    fn warn<T>(&self, result: sled::Result<T>) {
        if let Err(error) = result {
            tracing::warn!(%error, "the index could not be updated; it is rebuilt at the next start");
        }
    }
}
