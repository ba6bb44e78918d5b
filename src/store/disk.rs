//! The store on a disk: a folder of blob files, and the index beside it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::file::{BlobFile, path, sync_folder};
use super::index::{Index, Record};
use super::{Blob, Held, Store, StoreError, now_ms};
use crate::core::evict::{self, Candidate, Room};
use crate::core::id::{BlobId, ManifestId};
use crate::core::manifest::Manifest;

/// Blob files that stay open though nobody uses them: what was verified of them is remembered.
const MAX_OPEN: usize = 256;

/// The disk is nearly full when it has no more left than the reserve and this part of it.
const NEARLY: u64 = 4;

/// What the store may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most bytes that blobs may take.
    pub quota: u64,
    /// Bytes to leave free on the file system.
    pub reserve: u64,
}

#[derive(Debug)]
struct Entry {
    size: u64,
    complete: bool,
    record: Record,
    /// Its record has changed since it was written down.
    touched: bool,
    /// Open since somebody asked for it.
    open: Option<Arc<BlobFile>>,
}

impl Entry {
    /// All chunks are there, durable or not yet.
    fn is_complete(&self) -> bool {
        self.complete || self.open.as_ref().is_some_and(|open| open.is_full())
    }
}

/// Blobs in `DIR/blobs`, the index in `DIR/index`. One process at a time: `DIR/lock`.
#[derive(Debug)]
pub struct DiskStore {
    folder: PathBuf,
    index: Index,
    limits: Limits,
    entries: Mutex<HashMap<BlobId, Entry>>,
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
        if lock.try_lock().is_err() {
            let why =
                "another agent uses this state directory; stop it, or give this one another --state-dir";
            return Err(StoreError::Unusable(format!("{}: {why}", dir.display())));
        }
        let index = Index::open(&dir.join("index"))?;
        let store = Self { folder, index, limits, entries: Mutex::default(), _lock: lock };
        store.scan()?;
        Ok(store)
    }

    /// Finds what is there. The files decide; the index is brought up to date with them.
    fn scan(&self) -> Result<(), StoreError> {
        let listing = fs::read_dir(&self.folder).map_err(StoreError::io("list the blob folder"))?;
        let mut found = HashMap::new();
        for file in listing.flatten() {
            let name = file.file_name();
            let Some((stem, ending)) = name.to_str().and_then(|name| name.rsplit_once('.')) else { continue };
            if let Ok(blob) = stem.parse::<BlobId>()
                && matches!(ending, "blob" | "part")
            {
                *found.entry(blob).or_insert(false) |= ending == "blob";
            }
        }
        for (blob, complete) in found {
            let Some(manifest) = self.read_manifest(&blob) else {
                tracing::warn!(%blob, "dropped: its manifest is gone or damaged");
                self.remove_files(&blob);
                continue;
            };
            let mut record = self.index.record(&blob).unwrap_or_default();
            if complete && !record.indexed {
                self.index.add_chunks(&manifest);
                record.indexed = true;
            }
            let entry = Entry { size: manifest.size(), complete, record, touched: false, open: None };
            self.entries().insert(blob, entry);
        }
        Ok(())
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<BlobId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The manifest file holds its own id before the encoding, so that damage shows.
    fn read_manifest(&self, blob: &BlobId) -> Option<Arc<Manifest>> {
        let bytes = fs::read(path(&self.folder, blob, "manifest")).ok()?;
        let (id, encoded) = bytes.split_at_checked(32)?;
        let manifest = Manifest::decode(ManifestId::from_slice(id)?, encoded.to_vec().into()).ok()?;
        (manifest.blob() == *blob).then(|| Arc::new(manifest))
    }

    fn write_manifest(&self, manifest: &Manifest) -> std::io::Result<()> {
        let target = path(&self.folder, &manifest.blob(), "manifest");
        let draft = path(&self.folder, &manifest.blob(), "manifest-new");
        fs::write(&draft, [&manifest.id().as_bytes()[..], manifest.encoded()].concat())?;
        File::open(&draft)?.sync_all()?;
        fs::rename(&draft, target)?;
        sync_folder(&self.folder)
    }

    fn remove_files(&self, blob: &BlobId) {
        for ending in ["blob", "part", "manifest"] {
            fs::remove_file(path(&self.folder, blob, ending)).ok();
        }
    }

    fn disk_free(&self) -> Result<u64, StoreError> {
        rustix::fs::statvfs(&self.folder)
            .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
            .map_err(|error| StoreError::io("ask for free space")(error.into()))
    }

    /// Evicts until so many more bytes fit.
    fn make_room(&self, incoming: u64) -> Result<(), StoreError> {
        let disk_free = self.disk_free()?;
        let room = Room { quota: self.limits.quota, disk_free, reserve: self.limits.reserve };
        let candidates: Vec<Candidate> = self
            .entries()
            .iter()
            .map(|(&blob, entry)| Candidate {
                blob,
                bytes: entry.size,
                last_used: entry.record.last_used,
                kept: entry.record.pinned || in_use(entry),
            })
            .collect();
        let Some(victims) = evict::plan(candidates, room, incoming) else {
            let why = if incoming + room.reserve > room.disk_free {
                format!("the disk has {} bytes free, of which {} stay free", room.disk_free, room.reserve)
            } else {
                format!("the quota is {} bytes", room.quota)
            };
            return Err(StoreError::NoSpace { needed: incoming, why });
        };
        for blob in victims {
            tracing::info!(%blob, "evicted, to make room");
            self.remove(&blob)?;
        }
        Ok(())
    }

    /// Copies what other blobs hold; what cannot be read there is fetched like the rest.
    fn reuse(&self, blob: &BlobFile) {
        let held = blob.held();
        let mut donors: HashMap<BlobId, Option<Arc<dyn Blob>>> = HashMap::new();
        for (index, chunk) in (0u32..).zip(blob.manifest().chunks()) {
            if held.contains(index) {
                continue;
            }
            let Some((donor, at)) = self.index.place(&chunk.id) else { continue };
            if donor == blob.manifest().blob() {
                continue;
            }
            let donor = donors.entry(donor).or_insert_with(|| self.get(&donor));
            let content = donor.as_ref().and_then(|donor| donor.read(at).ok());
            if let Some(content) = content
                && let Err(error) = blob.write(index, &content)
            {
                tracing::debug!(%error, "a chunk could not be taken over");
            }
        }
    }

    fn insert(&self, blob: Arc<BlobFile>, complete: bool) -> Arc<BlobFile> {
        let id = blob.manifest().blob();
        let record = Record { last_used: now_ms(), ..self.index.record(&id).unwrap_or_default() };
        self.index.set_record(&id, record);
        let size = blob.manifest().size();
        let mut entries = self.entries();
        let entry = entries.entry(id).or_insert(Entry { size, complete, record, touched: false, open: None });
        entry.record.last_used = record.last_used;
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
        let file = self.insert(Arc::new(file), complete);
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

fn in_use(entry: &Entry) -> bool {
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
        self.file.read_run(first, most)
    }

    fn read_cached(&self, first: u32, most: u64) -> Option<bytes::Bytes> {
        self.file.read_cached(first, most)
    }

    fn finish(&self) -> Result<(), StoreError> {
        self.store.finish(&self.file)
    }
}

impl Store for Arc<DiskStore> {
    fn open(&self, manifest: &Arc<Manifest>) -> Result<Arc<dyn Blob>, StoreError> {
        let blob = manifest.blob();
        let known = self.open_known(&blob).filter(|known| known.manifest().id() == manifest.id());
        if let Some(file) = known {
            return Ok(Arc::new(Indexed { file, store: self.clone() }));
        }
        self.remove(&blob)?;
        self.make_room(manifest.size())?;
        self.write_manifest(manifest).map_err(StoreError::io("write a manifest"))?;
        let file = BlobFile::create(&self.folder, manifest.clone())?;
        self.reuse(&file);
        let file = self.insert(Arc::new(file), false);
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
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(blob) else { return false };
        if entry.record.pinned != pinned {
            entry.record.pinned = pinned;
            self.index.set_record(blob, entry.record);
        }
        true
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

    fn flush(&self) {
        let touched: Vec<(BlobId, Record)> = self
            .entries()
            .iter_mut()
            .filter_map(|(blob, entry)| std::mem::take(&mut entry.touched).then_some((*blob, entry.record)))
            .collect();
        touched.iter().for_each(|(blob, record)| self.index.set_record(blob, *record));
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
            }
        }
        Ok(())
    }

    fn get(&self, blob: &BlobId) -> Option<Arc<dyn Blob>> {
        self.open_known(blob).map(|file| file as Arc<dyn Blob>)
    }

    fn remove(&self, blob: &BlobId) -> Result<bool, StoreError> {
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
