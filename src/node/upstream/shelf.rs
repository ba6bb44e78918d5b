//! What this node knows of objects: their records, in sled, and which blob is a piece of which.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::versions::Versions;
use super::{Wanted, label};
use crate::core::id::BlobId;
use crate::core::upstream::record::Record;
use crate::core::upstream::{ObjectKey, alike};
use crate::store::database;

const CACHE: u64 = 4 << 20;
/// Records beyond these make room: those that were checked longest ago.
const MOST: usize = 200_000;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    label: String,
    /// Where it was found; nothing of a query.
    #[serde(default)]
    path: String,
    record: Record,
}

/// Records that outlive this process. They are a cache: what is lost is asked for again.
#[derive(Debug)]
pub(super) struct Shelf {
    db: sled::Db,
    records: sled::Tree,
    unsaved: AtomicBool,
    labels: Mutex<HashMap<BlobId, std::sync::Arc<str>>>,
    versions: Versions,
}

impl Shelf {
    /// Opens the records in a folder; what cannot be read is begun anew.
    ///
    /// # Errors
    /// In words, if the folder cannot be used.
    pub(super) fn open(dir: &Path) -> Result<Self, String> {
        let db = database::open(dir, CACHE, |error| {
            tracing::warn!(%error, "what was known of upstreams is damaged, and is asked for again");
            std::fs::remove_dir_all(dir).ok();
        })?;
        let records = db.open_tree("records").map_err(|error| format!("{}: {error}", dir.display()))?;
        let (labels, versions, unsaved) = (Mutex::default(), Versions::default(), AtomicBool::new(true));
        let shelf = Self { db, records, unsaved, labels, versions };
        for (key, kept) in shelf.records.iter().flatten() {
            match serde_json::from_slice::<Kept>(&kept) {
                Ok(kept) => shelf.noted(&key, &kept),
                Err(_) => drop(shelf.records.remove(key)),
            }
        }
        Ok(shelf)
    }

    fn noted(&self, key: &[u8], kept: &Kept) {
        self.note(&kept.label, &kept.record);
        if let Some(key) = ObjectKey::from_slice(key) {
            self.versions.note(key, &kept.label, &kept.path, &kept.record);
        }
    }

    fn labels(&self) -> MutexGuard<'_, HashMap<BlobId, std::sync::Arc<str>>> {
        self.labels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This is a piece of an upstream's object.
    pub(super) fn note_one(&self, label: &str, blob: BlobId) {
        self.labels().insert(blob, label.into());
    }

    /// These are pieces of an upstream's object.
    pub(super) fn note(&self, label: &str, record: &Record) {
        let label: std::sync::Arc<str> = label.into();
        let mut labels = self.labels();
        record.segments.iter().for_each(|segment| drop(labels.insert(segment.blob, label.clone())));
    }

    /// How the ledger calls a blob, if it is a piece of an upstream's object.
    pub(super) fn label_of(&self, blob: &BlobId) -> Option<std::sync::Arc<str>> {
        self.labels().get(blob).cloned()
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<Record> {
        let kept = self.records.get(key.as_bytes()).ok()??;
        serde_json::from_slice::<Kept>(&kept).ok().map(|kept| kept.record)
    }

    /// Blocks for a moment.
    pub(super) fn put(&self, wanted: &Wanted, record: &Record) {
        let (key, path) = (wanted.key(), alike::place(&wanted.path).to_owned());
        let kept = Kept { label: label(&wanted.upstream), path, record: record.clone() };
        // What is replaced in its place is still what others hold of it.
        let replaced = self.get(&key).filter(|before| Versions::is_worth(&kept.path, before));
        if let Some(before) = replaced.filter(|before| before.segments != record.segments) {
            let content = before.content();
            self.insert(ObjectKey::of_content(&content), &Kept { record: before, ..kept.clone() });
        }
        self.insert(key, &kept);
        if self.records.len() > MOST {
            self.make_room();
        }
    }

    pub(super) fn is_unsaved(&self) -> bool {
        self.unsaved.load(Ordering::Relaxed)
    }

    /// Blocks.
    pub(super) fn save(&self) {
        if self.unsaved.swap(false, Ordering::Relaxed)
            && let Err(error) = self.db.flush()
        {
            tracing::warn!(%error, "what upstreams sent of late will not be known after a restart");
        }
    }

    fn insert(&self, key: ObjectKey, kept: &Kept) {
        self.noted(key.as_bytes(), kept);
        let put = serde_json::to_vec(&kept).ok().map(|kept| self.records.insert(key.as_bytes(), kept));
        self.unsaved.store(true, Ordering::Relaxed);
        if let Some(Err(error)) = put {
            tracing::warn!(%error, "what an upstream sent is kept, and will not be known after a restart");
        }
    }

    /// Complete objects that are likely to be versions of what is wanted, the likeliest first.
    pub(super) fn like(&self, wanted: &Wanted) -> impl Iterator<Item = Record> {
        let keys = self.versions.like(&label(&wanted.upstream), &wanted.path);
        keys.into_iter().filter_map(|key| self.get(&key)).filter(|record| record.complete)
    }

    /// The complete object with these bytes.
    pub(super) fn of_content(&self, content: &BlobId) -> Option<Record> {
        let record = self.get(&self.versions.of_content(content)?)?;
        (record.complete && record.content() == *content).then_some(record)
    }

    pub(super) fn remove(&self, key: &ObjectKey) {
        if let Err(error) = self.records.remove(key.as_bytes()) {
            tracing::warn!(%error, "a record of an upstream could not be removed");
        }
        self.unsaved.store(true, Ordering::Relaxed);
    }

    fn make_room(&self) {
        let age = |kept: &[u8]| serde_json::from_slice::<Kept>(kept).map_or(0, |kept| kept.record.checked_ms);
        let mut all: Vec<(u64, sled::IVec)> =
            self.records.iter().flatten().map(|(key, kept)| (age(&kept), key)).collect();
        all.sort_unstable();
        for (_, key) in all.into_iter().take(MOST / 10) {
            self.records.remove(key).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::id::ManifestId;
    use crate::core::upstream::record::Segment;

    #[test]
    fn records_outlive_the_process() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("upstream");
        let wanted = Wanted::immutable("debian", "pool/a.deb", None);
        let key = wanted.key();
        let segment = Segment { blob: BlobId::of(b"a"), manifest: ManifestId::of(b"m"), size: 1 };
        let record = Record { segments: vec![segment], size: Some(1), complete: true, ..Record::default() };
        let shelf = Shelf::open(&path).expect("a fresh folder");
        shelf.put(&wanted, &record);
        drop(shelf);
        let shelf = Shelf::open(&path).expect("its own folder");
        assert_eq!(shelf.get(&key), Some(record));
        assert_eq!(shelf.label_of(&BlobId::of(b"a")).as_deref(), Some("debian@upstream"));
        shelf.remove(&key);
        assert_eq!(shelf.get(&key), None);
    }
}
