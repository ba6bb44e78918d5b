//! The store on a disk: a folder of blob files, and the index beside it.

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::database::patiently;
use super::file::BlobFile;
use super::index::{Index, Record};
use super::{Blob, Checked, Damaged, Held, Leftover, Store, StoreError, Trimmed, now_ms};
use crate::core::id::{BlobId, PackageName};
use crate::core::manifest::Manifest;
use crate::core::quota::Quotas;

/// Blob files that stay open though nobody uses them: what was verified of them is remembered.
const MAX_OPEN: usize = 256;

/// Reads that found damage and that nobody was told of yet.
const MAX_DAMAGED: usize = 64;

/// The disk is nearly full when it has no more left than the reserve and this part of it.
const NEARLY: u64 = 4;

/// What the store may use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The most bytes that blobs may take.
    pub quota: u64,
    /// Bytes to leave free on the file system.
    pub reserve: u64,
    /// What each package may take of them.
    pub packages: Quotas,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) size: u64,
    /// It has the name of a complete one, as far as is known: what lies in the file decides.
    pub(super) complete: bool,
    pub(super) record: Record,
    /// Its record has changed since it was written down.
    pub(super) touched: bool,
    /// Open since somebody asked for it.
    pub(super) open: Option<Arc<BlobFile>>,
}

impl Entry {
    /// All chunks are there, durable or not yet.
    fn is_complete(&self) -> bool {
        self.open.as_ref().map_or(self.complete, |open| open.is_full())
    }
}

/// Blobs in `DIR/blobs`, the index in `DIR/index`. One process at a time: `DIR/lock`.
#[derive(Debug)]
pub struct DiskStore {
    pub(super) folder: PathBuf,
    pub(super) index: Index,
    pub(super) limits: Limits,
    entries: Mutex<HashMap<BlobId, Entry>>,
    damaged: Mutex<Vec<Damaged>>,
    _lock: File,
}

impl DiskStore {
    /// Opens the store in a state directory, and makes it if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if another process has it; [`StoreError::Io`].
    pub fn open(dir: &Path, limits: Limits) -> Result<Self, StoreError> {
        let folder = dir.join("blobs");
        fs::create_dir_all(&folder).map_err(StoreError::io("create the blob folder"))?;
        let lock = File::create(dir.join("lock")).map_err(StoreError::io("create the lock file"))?;
        if patiently(|| lock.try_lock(), |error| matches!(error, TryLockError::WouldBlock)).is_err() {
            let why =
                "another agent uses this state directory; stop it, or give this one another --state-dir";
            return Err(StoreError::Unusable(format!("{}: {why}", dir.display())));
        }
        let index = Index::open(&dir.join("index"))?;
        let store =
            Self { folder, index, limits, entries: Mutex::default(), damaged: Mutex::default(), _lock: lock };
        store.scan()?;
        Ok(store)
    }

    pub(super) fn entries(&self) -> MutexGuard<'_, HashMap<BlobId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was opened is everybody's; it was used just now if somebody wants to have it.
    fn insert(&self, blob: Arc<BlobFile>, complete: bool, used: Option<Option<&str>>) -> Arc<BlobFile> {
        let id = blob.manifest().blob();
        let size = blob.manifest().size();
        let mut entries = self.entries();
        let entry = entries.entry(id).or_insert_with(|| {
            let record = self.index.record(&id).unwrap_or_default();
            Entry { size, complete, record, touched: false, open: None }
        });
        if let Some(package) = used {
            entry.record.last_used = now_ms();
            entry.record.group = package.map(str::to_owned).or(entry.record.group.take());
            self.index.set_record(&id, &entry.record);
        }
        // Two callers may have opened it at once: the first one's file is everybody's.
        let open = entry.open.get_or_insert(blob).clone();
        close_idle(&mut entries);
        open
    }

    fn open_known(&self, blob: &BlobId) -> Option<Arc<BlobFile>> {
        let complete = {
            let entries = self.entries();
            let entry = entries.get(blob)?;
            if let Some(open) = &entry.open {
                return Some(open.clone());
            }
            entry.complete
        };
        let manifest = self.read_manifest(blob)?;
        let file = BlobFile::load(&self.folder, manifest).ok()?;
        let file = self.insert(Arc::new(file), complete, None);
        if !complete && let Err(error) = self.finish(&file) {
            tracing::warn!(%blob, %error, "could not be finished; tried again at the next opening");
        }
        Some(file)
    }
}

/// Keeps the number of open files bounded: closes those that nobody uses, oldest first.
fn close_idle(entries: &mut HashMap<BlobId, Entry>) {
    let open = entries.values().filter(|entry| entry.open.is_some()).count();
    let mut idle: Vec<(u64, BlobId)> = entries
        .iter()
        .filter(|(_, entry)| entry.open.is_some() && !in_use(entry))
        .map(|(blob, entry)| (entry.record.last_used, *blob))
        .collect();
    idle.sort_unstable();
    for (_, blob) in idle.into_iter().take(open.saturating_sub(MAX_OPEN)) {
        if let Some(entry) = entries.get_mut(&blob) {
            entry.open = None;
        }
    }
}

pub(super) fn in_use(entry: &Entry) -> bool {
    entry.open.as_ref().is_some_and(|open| Arc::strong_count(open) > 1)
}

/// A blob whose completion is entered into the index.
struct Indexed {
    file: Arc<BlobFile>,
    store: Arc<DiskStore>,
}

impl Blob for Indexed {
    fn manifest(&self) -> &Arc<Manifest> {
        self.file.manifest()
    }

    fn held(&self) -> crate::core::chunkset::ChunkSet {
        self.file.held()
    }

    fn write(&self, first: u32, content: &[u8]) -> Result<Vec<u32>, StoreError> {
        self.file.write(first, content)
    }

    fn read_run(&self, first: u32, most: u64) -> Result<bytes::Bytes, StoreError> {
        let read = self.file.read_run(first, most);
        if let Some(lost) = self.store.note_lost(&self.file) {
            self.store.damaged(|damaged| damaged.push(lost));
        }
        read
    }

    fn recheck(&self, first: u32, most: u64) -> Result<Checked, StoreError> {
        let checked = self.file.recheck(first, most);
        self.store.note_lost(&self.file);
        checked
    }

    fn read_cached(&self, first: u32, most: u64) -> Option<bytes::Bytes> {
        self.file.read_cached(first, most)
    }

    fn finish(&self) -> Result<(), StoreError> {
        self.store.finish(&self.file)
    }
}

/// Copies what other blobs hold; what cannot be read there is fetched like the rest.
fn reuse(store: &Arc<DiskStore>, blob: &BlobFile) {
    let held = blob.held();
    let mut donors: HashMap<BlobId, Option<Arc<dyn Blob>>> = HashMap::new();
    for (index, chunk) in (0u32..).zip(blob.manifest().chunks()) {
        if held.contains(index) {
            continue;
        }
        let Some((donor, at)) = store.index.place(&chunk.id) else { continue };
        if donor == blob.manifest().blob() {
            continue;
        }
        let donor = donors.entry(donor).or_insert_with(|| Store::get(store, &donor));
        let content = donor.as_ref().and_then(|donor| donor.read(at).ok());
        if let Some(content) = content
            && let Err(error) = blob.write(index, &content)
        {
            tracing::debug!(%error, "a chunk could not be taken over");
        }
    }
}

impl Store for Arc<DiskStore> {
    fn open_in(
        &self,
        manifest: &Arc<Manifest>,
        package: Option<&PackageName>,
    ) -> Result<Arc<dyn Blob>, StoreError> {
        let (blob, package) = (manifest.blob(), package.map(PackageName::as_str));
        let known = self.open_known(&blob).filter(|known| known.manifest().id() == manifest.id());
        if let Some(file) = known {
            self.touch(&blob);
            return Ok(Arc::new(Indexed { file, store: self.clone() }));
        }
        self.remove(&blob)?;
        self.make_room(manifest.size(), package)?;
        self.write_manifest(manifest).map_err(StoreError::io("write a manifest"))?;
        let file = BlobFile::create(&self.folder, manifest.clone())?;
        reuse(self, &file);
        let file = self.insert(Arc::new(file), false, Some(package));
        let blob = Indexed { file, store: self.clone() };
        blob.finish()?;
        Ok(Arc::new(blob))
    }

    fn get(&self, blob: &BlobId) -> Option<Arc<dyn Blob>> {
        let file = self.open_known(blob)?;
        Some(Arc::new(Indexed { file, store: self.clone() }))
    }

    fn at_hand(&self, blob: &BlobId) -> Option<Arc<dyn Blob>> {
        let file = self.entries().get(blob)?.open.clone()?;
        Some(Arc::new(Indexed { file, store: self.clone() }))
    }

    fn list(&self) -> Vec<Held> {
        let entries = self.entries();
        entries
            .iter()
            .map(|(&blob, entry)| Held {
                blob,
                size: entry.size,
                complete: entry.is_complete(),
                last_used: entry.record.last_used,
                pinned: entry.record.pinned,
                in_use: in_use(entry),
                group: entry.record.group.clone(),
                verified: entry.record.verified,
            })
            .collect()
    }

    fn touch(&self, blob: &BlobId) {
        if let Some(entry) = self.entries().get_mut(blob) {
            entry.record.last_used = now_ms();
            entry.touched = true;
        }
    }

    fn set_pinned(&self, blob: &BlobId, pinned: bool) -> bool {
        self.change(blob, |record| std::mem::replace(&mut record.pinned, pinned) != pinned)
    }

    fn set_package(&self, blob: &BlobId, package: &PackageName) {
        let name = Some(package.to_string());
        self.change(blob, |record| std::mem::replace(&mut record.group, name.clone()) != name);
    }

    fn set_verified(&self, blob: &BlobId, at_ms: u64) {
        self.change(blob, |record| std::mem::replace(&mut record.verified, at_ms) != at_ms);
    }

    fn trim(&self) -> Trimmed {
        DiskStore::trim(self)
    }

    fn take_damaged(&self) -> Vec<Damaged> {
        self.damaged(std::mem::take)
    }

    fn leftovers(&self, look: bool) -> Vec<Leftover> {
        DiskStore::leftovers(self, look)
    }

    fn remove(&self, blob: &BlobId) -> Result<bool, StoreError> {
        DiskStore::remove(self, blob)
    }

    fn disk_free(&self) -> Option<u64> {
        DiskStore::disk_free(self).ok()
    }

    fn is_nearly_full(&self) -> bool {
        let reserve = self.limits.reserve;
        DiskStore::disk_free(self).is_ok_and(|free| free < reserve.saturating_add(reserve / NEARLY))
    }

    fn is_unsaved(&self) -> bool {
        self.index.is_unsaved()
    }

    fn flush(&self) {
        let touched: Vec<(BlobId, Record)> = self
            .entries()
            .iter_mut()
            .filter_map(|(blob, entry)| {
                std::mem::take(&mut entry.touched).then(|| (*blob, entry.record.clone()))
            })
            .collect();
        touched.iter().for_each(|(blob, record)| self.index.set_record(blob, record));
        self.index.flush();
    }
}

impl DiskStore {
    /// Makes a blob that has all its chunks durable, and known to others for reuse.
    fn finish(&self, file: &BlobFile) -> Result<(), StoreError> {
        file.finish()?;
        let manifest = file.manifest();
        if file.held().len() == manifest.count() {
            let first = self.entries().get_mut(&manifest.blob()).is_some_and(|entry| {
                entry.record.indexed = true;
                !std::mem::replace(&mut entry.complete, true)
            });
            if first {
                self.index.add_chunks(manifest);
                // Every chunk was hashed on its way in.
                self.change(&manifest.blob(), |record| {
                    record.verified = now_ms();
                    true
                });
            }
        }
        Ok(())
    }

    /// The index does not know chunks any more that turned out damaged. Others hold them perhaps, and
    /// the next blob that needs them finds them there.
    fn note_lost(&self, file: &BlobFile) -> Option<Damaged> {
        let lost = file.take_lost();
        if lost.is_empty() {
            return None;
        }
        let manifest = file.manifest();
        let blob = manifest.blob();
        tracing::warn!(%blob, chunks = lost.len(), "damaged on disk, and not held any more");
        let mut was_complete = false;
        if let Some(entry) = self.entries().get_mut(&blob) {
            was_complete = std::mem::take(&mut entry.complete);
            // All are entered again when it is whole again.
            entry.record.indexed = false;
            self.index.set_record(&blob, &entry.record);
        }
        let chunks = lost.iter().filter_map(|&index| manifest.chunk(index)).map(|chunk| &chunk.id);
        self.index.forget_chunks(&blob, chunks);
        Some(Damaged { blob, was_complete, chunks: lost })
    }

    fn damaged<T>(&self, of: impl FnOnce(&mut Vec<Damaged>) -> T) -> T {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        let done = of(&mut damaged);
        damaged.truncate(MAX_DAMAGED);
        done
    }

    /// Changes a record, and writes it down if it is another then; false if the blob is not held.
    fn change(&self, blob: &BlobId, change: impl FnOnce(&mut Record) -> bool) -> bool {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(blob) else { return false };
        if change(&mut entry.record) {
            self.index.set_record(blob, &entry.record);
        }
        true
    }

    pub(super) fn remove(&self, blob: &BlobId) -> Result<bool, StoreError> {
        {
            let mut entries = self.entries();
            match entries.get(blob) {
                None => return Ok(false),
                Some(entry) if in_use(entry) => return Ok(false),
                Some(_) => entries.remove(blob),
            };
        }
        self.index.remove(blob, self.read_manifest(blob).as_deref());
        self.remove_files(blob);
        Ok(true)
    }
}
