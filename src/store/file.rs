//! One blob as a file: `HEX.part` while it fills, `HEX.blob` when it is complete.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Blob, StoreError};
use crate::core::chunkset::ChunkSet;
use crate::core::id::{BlobId, ChunkId};
use crate::core::manifest::Manifest;

/// Changes whenever somebody writes to the file: size, change time in nanoseconds.
type Stamp = (u64, i64, i64);

#[derive(Debug)]
struct State {
    held: ChunkSet,
    /// Chunks hashed since `stamp`.
    verified: ChunkSet,
    stamp: Stamp,
    complete: bool,
}

/// A blob in a file. One owner of its state: the mutex, never held over I/O but the rename.
#[derive(Debug)]
pub(super) struct BlobFile {
    manifest: Arc<Manifest>,
    folder: PathBuf,
    file: File,
    state: Mutex<State>,
}

/// The names that a blob has in its folder.
pub(super) fn path(folder: &Path, blob: &BlobId, ending: &str) -> PathBuf {
    folder.join(format!("{blob}.{ending}"))
}

impl BlobFile {
    /// A new file with room for the whole blob.
    pub(super) fn create(folder: &Path, manifest: Arc<Manifest>) -> Result<Self, StoreError> {
        let target = path(folder, &manifest.blob(), "part");
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&target);
        let file = open.map_err(StoreError::io("create a blob file"))?;
        if let Err(error) = reserve(&file, manifest.size()) {
            std::fs::remove_file(&target).ok();
            return Err(StoreError::io("reserve room for a blob")(error));
        }
        Ok(Self::over(folder, manifest, file, ChunkSet::new(), false))
    }

    /// A file that is there: a complete one is believed until it is read, another is hashed.
    pub(super) fn load(folder: &Path, manifest: Arc<Manifest>) -> Result<Self, StoreError> {
        let edit =
            |ending| OpenOptions::new().read(true).write(true).open(path(folder, &manifest.blob(), ending));
        match edit("blob") {
            Ok(file) => {
                let held = ChunkSet::full(manifest.count());
                Ok(Self::over(folder, manifest, file, held, true))
            }
            Err(_) => {
                let file = edit("part").map_err(StoreError::io("open a blob file"))?;
                file.set_len(manifest.size()).map_err(StoreError::io("size a blob file"))?;
                let held = (0..manifest.count()).filter(|&index| matches(&file, &manifest, index)).collect();
                Ok(Self::over(folder, manifest, file, held, false))
            }
        }
    }

    fn over(folder: &Path, manifest: Arc<Manifest>, file: File, held: ChunkSet, complete: bool) -> Self {
        let verified = if complete { ChunkSet::new() } else { held.clone() };
        let stamp = stamp(&file).unwrap_or_default();
        let state = Mutex::new(State { held, verified, stamp, complete });
        Self { manifest, folder: folder.to_owned(), file, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what was verified if the file was changed by somebody else.
    fn check_stamp(&self) {
        let now = stamp(&self.file).unwrap_or_default();
        let mut state = self.state();
        // While it fills, this process changes it all the time; what it wrote it had verified.
        if state.complete && state.stamp != now {
            state.stamp = now;
            state.verified = ChunkSet::new();
        }
    }
}

impl Blob for BlobFile {
    fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    fn held(&self) -> ChunkSet {
        self.state().held.clone()
    }

    fn write(&self, index: u32, content: &[u8]) -> Result<Vec<u32>, StoreError> {
        let chunk = self.manifest.chunk(index).ok_or(StoreError::NotHeld(index))?;
        if content.len() != chunk.length as usize || ChunkId::of(content) != chunk.id {
            return Err(StoreError::WrongHash(index));
        }
        let mut places = self.manifest.places(index);
        {
            let state = self.state();
            places.retain(|&place| !state.held.contains(place));
        }
        for chunk in places.iter().filter_map(|&place| self.manifest.chunk(place)) {
            self.file.write_all_at(content, chunk.offset).map_err(StoreError::io("write a chunk"))?;
        }
        let mut state = self.state();
        places.retain(|&place| state.held.insert(place));
        for &place in &places {
            state.verified.insert(place);
        }
        Ok(places)
    }

    fn read(&self, index: u32) -> Result<Bytes, StoreError> {
        let chunk = self.manifest.chunk(index).ok_or(StoreError::NotHeld(index))?;
        self.check_stamp();
        let verified = {
            let state = self.state();
            if !state.held.contains(index) {
                return Err(StoreError::NotHeld(index));
            }
            state.verified.contains(index)
        };
        let mut content = vec![0; chunk.length as usize];
        let read = self.file.read_exact_at(&mut content, chunk.offset);
        // A file that was cut short is damaged, not unreadable.
        let cut = matches!(&read, Err(error) if error.kind() == io::ErrorKind::UnexpectedEof);
        if !cut {
            read.map_err(StoreError::io("read a chunk"))?;
        }
        if !verified || cut {
            if cut || ChunkId::of(&content) != chunk.id {
                let mut state = self.state();
                state.held.remove(index);
                state.verified.remove(index);
                return Err(StoreError::WrongHash(index));
            }
            self.state().verified.insert(index);
        }
        Ok(Bytes::from(content))
    }

    fn finish(&self) -> Result<(), StoreError> {
        if self.state().held.len() != self.manifest.count() {
            return Ok(());
        }
        self.file.sync_all().map_err(StoreError::io("flush a blob"))?;
        let blob = self.manifest.blob();
        let (part, whole) = (path(&self.folder, &blob, "part"), path(&self.folder, &blob, "blob"));
        let mut state = self.state();
        if !state.complete {
            match std::fs::rename(&part, &whole) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && whole.exists() => {}
                renamed => renamed.map_err(StoreError::io("name a complete blob"))?,
            }
            sync_folder(&self.folder).map_err(StoreError::io("flush the blob folder"))?;
            state.complete = true;
        }
        state.stamp = stamp(&self.file).unwrap_or_default();
        Ok(())
    }
}

fn stamp(file: &File) -> io::Result<Stamp> {
    let meta = file.metadata()?;
    Ok((meta.len(), meta.ctime(), meta.ctime_nsec()))
}

fn matches(file: &File, manifest: &Manifest, index: u32) -> bool {
    let Some(chunk) = manifest.chunk(index) else { return false };
    let mut content = vec![0; chunk.length as usize];
    file.read_exact_at(&mut content, chunk.offset).is_ok() && ChunkId::of(&content) == chunk.id
}

/// Takes the room now, so that a full disk shows before the transfer and not in its middle.
fn reserve(file: &File, size: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    if size == 0 {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::empty(), 0, size) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(size),
        Err(error) => Err(error.into()),
    }
}

/// Makes renames in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
