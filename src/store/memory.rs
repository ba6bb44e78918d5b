//! The store's double: the same behaviour, in memory.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::span::{run, verified};
use super::{Blob, Held, Store, StoreError, now_ms};
use crate::core::chunkset::ChunkSet;
use crate::core::id::BlobId;
use crate::core::manifest::Manifest;

/// A blob in memory.
#[derive(Debug)]
struct MemoryBlob {
    manifest: Arc<Manifest>,
    chunks: Mutex<HashMap<u32, Bytes>>,
}

/// Blobs in memory, up to a quota; nothing survives the process.
#[derive(Debug)]
pub struct MemoryStore {
    quota: u64,
    blobs: Mutex<HashMap<BlobId, (Arc<MemoryBlob>, u64)>>,
    pinned: Mutex<HashSet<BlobId>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryStore {
    /// An empty store that takes so many bytes.
    pub fn new(quota: u64) -> Self {
        Self { quota, blobs: Mutex::default(), pinned: Mutex::default() }
    }
}

impl Blob for MemoryBlob {
    fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    fn held(&self) -> ChunkSet {
        lock(&self.chunks).keys().copied().collect()
    }

    fn write(&self, first: u32, content: &[u8]) -> Result<Vec<u32>, StoreError> {
        let pieces = verified(&self.manifest, first, content)?;
        let mut chunks = lock(&self.chunks);
        let mut filled = Vec::new();
        for (index, piece) in pieces {
            let piece = Bytes::copy_from_slice(piece);
            let mut places = self.manifest.places(index);
            places.retain(|&place| chunks.insert(place, piece.clone()).is_none());
            filled.extend(places);
        }
        filled.sort_unstable();
        Ok(filled)
    }

    fn read_run(&self, first: u32, most: u64) -> Result<Bytes, StoreError> {
        self.read_cached(first, most).ok_or(StoreError::NotHeld(first))
    }

    fn read_cached(&self, first: u32, most: u64) -> Option<Bytes> {
        let chunks = lock(&self.chunks);
        let run = run(&self.manifest, first, most, |index| chunks.contains_key(&index))?;
        Some(
            run.filter_map(|index| chunks.get(&index))
                .fold(Vec::new(), |all, it| [&all[..], it].concat())
                .into(),
        )
    }

    fn finish(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Store for MemoryStore {
    fn open(&self, manifest: &Arc<Manifest>) -> Result<Arc<dyn Blob>, StoreError> {
        let mut blobs = lock(&self.blobs);
        if let Some((blob, used)) = blobs.get_mut(&manifest.blob()) {
            *used = now_ms();
            return Ok(blob.clone());
        }
        loop {
            let used: u64 = blobs.values().map(|(blob, _)| blob.manifest.size()).sum();
            if used + manifest.size() <= self.quota {
                break;
            }
            let pinned = lock(&self.pinned);
            let idle =
                blobs.iter().filter(|(id, (blob, _))| Arc::strong_count(blob) == 1 && !pinned.contains(*id));
            let Some(oldest) = idle.min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id) else {
                let why = format!("the quota is {} bytes", self.quota);
                return Err(StoreError::NoSpace { needed: manifest.size(), why });
            };
            blobs.remove(&oldest);
        }
        let blob = Arc::new(MemoryBlob { manifest: manifest.clone(), chunks: Mutex::default() });
        for (index, chunk) in (0u32..).zip(manifest.chunks()) {
            let donor = blobs.values().find_map(|(donor, _)| {
                let at = donor.manifest.chunks().iter().position(|other| other.id == chunk.id)?;
                donor.read(at as u32).ok()
            });
            if let Some(content) = donor {
                blob.write(index, &content)?;
            }
        }
        blobs.insert(manifest.blob(), (blob.clone(), now_ms()));
        Ok(blob)
    }

    fn get(&self, blob: &BlobId) -> Option<Arc<dyn Blob>> {
        lock(&self.blobs).get(blob).map(|(blob, _)| blob.clone() as Arc<dyn Blob>)
    }

    fn at_hand(&self, blob: &BlobId) -> Option<Arc<dyn Blob>> {
        self.get(blob)
    }

    fn list(&self) -> Vec<Held> {
        let blobs = lock(&self.blobs);
        let held = blobs.iter().map(|(&id, (blob, used))| Held {
            blob: id,
            size: blob.manifest.size(),
            complete: blob.held().len() == blob.manifest.count(),
            last_used: *used,
            pinned: lock(&self.pinned).contains(&id),
        });
        held.collect()
    }

    fn touch(&self, blob: &BlobId) {
        if let Some((_, used)) = lock(&self.blobs).get_mut(blob) {
            *used = now_ms();
        }
    }

    fn set_pinned(&self, blob: &BlobId, pinned: bool) -> bool {
        let held = lock(&self.blobs).contains_key(blob);
        if held && pinned {
            lock(&self.pinned).insert(*blob);
        } else {
            lock(&self.pinned).remove(blob);
        }
        held
    }

    fn remove(&self, blob: &BlobId) -> Result<bool, StoreError> {
        let mut blobs = lock(&self.blobs);
        let idle = blobs.get(blob).is_some_and(|(blob, _)| Arc::strong_count(blob) == 1);
        Ok(idle && blobs.remove(blob).is_some())
    }

    fn disk_free(&self) -> Option<u64> {
        None
    }

    fn is_nearly_full(&self) -> bool {
        false
    }

    fn flush(&self) {}
}
