//! The store's double: the same behaviour, in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::room::refusal;
use super::span::{run, verified};
use super::{Blob, Checked, Damaged, Held, Leftover, Store, StoreError, Trimmed, now_ms};
use crate::core::chunkset::ChunkSet;
use crate::core::evict::{self, Candidate, Incoming, Room};
use crate::core::id::{BlobId, PackageName};
use crate::core::manifest::Manifest;
use crate::core::quota::Quotas;

/// A blob in memory.
#[derive(Debug)]
struct MemoryBlob {
    manifest: Arc<Manifest>,
    chunks: Mutex<HashMap<u32, Bytes>>,
}

#[derive(Debug)]
struct Entry {
    blob: Arc<MemoryBlob>,
    last_used: u64,
    pinned: bool,
    group: Option<String>,
    verified: u64,
}

impl Entry {
    fn in_use(&self) -> bool {
        Arc::strong_count(&self.blob) > 1
    }

    fn candidate(&self) -> Candidate {
        Candidate {
            blob: self.blob.manifest.blob(),
            bytes: self.blob.manifest.size(),
            last_used: self.last_used,
            kept: self.pinned || self.in_use(),
            group: self.group.clone(),
        }
    }
}

/// Blobs in memory, up to a quota; nothing survives the process.
#[derive(Debug)]
pub struct MemoryStore {
    quota: u64,
    packages: Quotas,
    blobs: Mutex<HashMap<BlobId, Entry>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryStore {
    /// An empty store that takes so many bytes.
    pub fn new(quota: u64) -> Self {
        Self::with_packages(quota, Quotas::NONE)
    }

    /// The same, of each package no more than its quota.
    pub fn with_packages(quota: u64, packages: Quotas) -> Self {
        Self { quota, packages, blobs: Mutex::default() }
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

    fn recheck(&self, first: u32, most: u64) -> Result<Checked, StoreError> {
        let mut checked = Checked::default();
        for index in self.held().iter_from(first) {
            if checked.bytes >= most {
                checked.next = Some(index);
                break;
            }
            checked.bytes += self.manifest.chunk(index).map_or(0, |chunk| u64::from(chunk.length));
        }
        Ok(checked)
    }

    fn finish(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Store for MemoryStore {
    fn open_in(
        &self,
        manifest: &Arc<Manifest>,
        package: Option<&PackageName>,
    ) -> Result<Arc<dyn Blob>, StoreError> {
        let mut blobs = lock(&self.blobs);
        if let Some(entry) = blobs.get_mut(&manifest.blob()) {
            entry.last_used = now_ms();
            return Ok(entry.blob.clone());
        }
        let room = Room { quota: self.quota, disk_free: u64::MAX, reserve: 0 };
        let group = package.map(PackageName::as_str);
        let group = group.and_then(|group| Some((group, self.packages.of(group)?)));
        let held: Vec<Candidate> = blobs.values().map(Entry::candidate).collect();
        let bytes = manifest.size();
        let victims = evict::plan(&held, room, Incoming { bytes, group })
            .map_err(|full| refusal(full, room, bytes, group))?;
        for blob in victims {
            blobs.remove(&blob);
        }
        let blob = Arc::new(MemoryBlob { manifest: manifest.clone(), chunks: Mutex::default() });
        for (index, chunk) in (0u32..).zip(manifest.chunks()) {
            let donor = blobs.values().find_map(|donor| {
                let at = donor.blob.manifest.chunks().iter().position(|other| other.id == chunk.id)?;
                donor.blob.read(at as u32).ok()
            });
            if let Some(content) = donor {
                blob.write(index, &content)?;
            }
        }
        let group = package.map(ToString::to_string);
        let entry = Entry { blob: blob.clone(), last_used: now_ms(), pinned: false, group, verified: 0 };
        blobs.insert(manifest.blob(), entry);
        Ok(blob)
    }

    fn get(&self, blob: &BlobId) -> Option<Arc<dyn Blob>> {
        lock(&self.blobs).get(blob).map(|entry| entry.blob.clone() as Arc<dyn Blob>)
    }

    fn at_hand(&self, blob: &BlobId) -> Option<Arc<dyn Blob>> {
        self.get(blob)
    }

    fn list(&self) -> Vec<Held> {
        let blobs = lock(&self.blobs);
        let held = blobs.iter().map(|(&id, entry)| Held {
            blob: id,
            size: entry.blob.manifest.size(),
            complete: entry.blob.held().len() == entry.blob.manifest.count(),
            last_used: entry.last_used,
            pinned: entry.pinned,
            in_use: entry.in_use(),
            group: entry.group.clone(),
            verified: entry.verified,
        });
        held.collect()
    }

    fn touch(&self, blob: &BlobId) {
        if let Some(entry) = lock(&self.blobs).get_mut(blob) {
            entry.last_used = now_ms();
        }
    }

    fn set_pinned(&self, blob: &BlobId, pinned: bool) -> bool {
        lock(&self.blobs).get_mut(blob).map(|entry| entry.pinned = pinned).is_some()
    }

    fn set_package(&self, blob: &BlobId, package: &PackageName) {
        if let Some(entry) = lock(&self.blobs).get_mut(blob) {
            entry.group = Some(package.to_string());
        }
    }

    fn set_verified(&self, blob: &BlobId, at_ms: u64) {
        if let Some(entry) = lock(&self.blobs).get_mut(blob) {
            entry.verified = at_ms;
        }
    }

    fn trim(&self) -> Trimmed {
        let mut blobs = lock(&self.blobs);
        let held: Vec<Candidate> = blobs.values().map(Entry::candidate).collect();
        let plan = evict::trim(&held, &self.packages, self.quota);
        plan.blobs.iter().for_each(|blob| drop(blobs.remove(blob)));
        Trimmed { blobs: plan.blobs, over: plan.over.into_iter().collect(), cache_over: plan.cache_over }
    }

    fn take_damaged(&self) -> Vec<Damaged> {
        Vec::new()
    }

    fn leftovers(&self, _look: bool) -> Vec<Leftover> {
        Vec::new()
    }

    fn remove(&self, blob: &BlobId) -> Result<bool, StoreError> {
        let mut blobs = lock(&self.blobs);
        let idle = blobs.get(blob).is_some_and(|entry| !entry.in_use());
        Ok(idle && blobs.remove(blob).is_some())
    }

    fn disk_free(&self) -> Option<u64> {
        None
    }

    fn is_nearly_full(&self) -> bool {
        false
    }

    fn is_unsaved(&self) -> bool {
        false
    }

    fn flush(&self) {}
}
