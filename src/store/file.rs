//! One blob as a file: `HEX.part` while it fills, `HEX.blob` when it is complete.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Blob, Buffer, Checked, StoreError, check, span};
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
    /// It has its final name.
    complete: bool,
    /// Chunks that turned out damaged and that the index does not know of yet.
    lost: Vec<u32>,
}

/// A run of held chunks, about to be read.
struct Span {
    chunks: Range<u32>,
    bytes: Range<u64>,
    unverified: Vec<u32>,
}

/// A blob in a file. One owner of its state: its mutex, never held over I/O but the rename.
#[derive(Debug)]
pub(super) struct BlobFile {
    manifest: Arc<Manifest>,
    folder: PathBuf,
    file: File,
    state: Mutex<State>,
    /// Held while chunks are written. The kernel lets one write a file at a time anyway, and has the
    /// others spin.
    writing: Mutex<()>,
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
        let state = Mutex::new(State { held, verified, stamp, complete, lost: Vec::new() });
        Self { manifest, folder: folder.to_owned(), file, state, writing: Mutex::default() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.state().held.len() == self.manifest.count()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn span(&self, first: u32, most: u64) -> Option<Span> {
        self.check_stamp();
        let state = self.state();
        let chunks = span::run(&self.manifest, first, most, |index| state.held.contains(index))?;
        let bytes = span::bytes(&self.manifest, &chunks)?;
        let unverified = chunks.clone().filter(|&index| !state.verified.contains(index)).collect();
        Some(Span { chunks, bytes, unverified })
    }

    /// How many of the span's first `read` bytes are whole chunks.
    fn whole(&self, span: &Span, read: u64) -> u64 {
        let ends = span.chunks.clone().filter_map(|index| self.manifest.chunk(index));
        let ends = ends.map(|chunk| chunk.range().end - span.bytes.start);
        ends.take_while(|&end| end <= read).last().unwrap_or(0)
    }

    /// Hashes what was not hashed before; hands out what is right, up to the first damaged chunk.
    fn verify(&self, span: &Span, content: Bytes) -> Result<Bytes, StoreError> {
        let mut right = self.whole(span, content.len() as u64);
        let mut good = Vec::new();
        let mut damaged: Option<u32> = None;
        for index in span.chunks.clone() {
            let Some(chunk) = self.manifest.chunk(index) else { break };
            let place = chunk.offset - span.bytes.start;
            let end = place + u64::from(chunk.length);
            let fine = end <= content.len() as u64
                && (!span.unverified.contains(&index)
                    || ChunkId::of(&content[place as usize..end as usize]) == chunk.id);
            if !fine {
                (damaged, right) = (Some(index), right.min(place));
                break;
            }
            good.push(index);
        }
        let mut state = self.state();
        for index in good {
            state.verified.insert(index);
        }
        drop(state);
        if let Some(index) = damaged {
            self.drop_chunks(&[index]);
            if index == span.chunks.start {
                return Err(StoreError::WrongHash(index));
            }
        }
        Ok(content.slice(..right as usize))
    }

    /// Holds damaged chunks no more. A blob that was complete is not any longer, nor after a restart: it
    /// gets the name of one that fills, which is hashed when it is opened.
    pub(super) fn drop_chunks(&self, damaged: &[u32]) {
        let mut state = self.state();
        for &index in damaged {
            state.verified.remove(index);
            if state.held.remove(index) {
                state.lost.push(index);
            }
        }
        if !state.complete || state.lost.is_empty() {
            return;
        }
        let blob = self.manifest.blob();
        let [part, whole] = ["part", "blob"].map(|ending| path(&self.folder, &blob, ending));
        let renamed = std::fs::rename(whole, part).and_then(|()| sync_folder(&self.folder));
        match renamed {
            Ok(()) => state.complete = false,
            Err(error) => tracing::warn!(%blob, %error, "a damaged blob keeps the name of a complete one"),
        }
    }

    /// The chunks that were lost since this was last asked.
    pub(super) fn take_lost(&self) -> Vec<u32> {
        std::mem::take(&mut self.state().lost)
    }

    /// Where it lies now.
    pub(super) fn place(&self) -> PathBuf {
        let ending = if self.state().complete { "blob" } else { "part" };
        path(&self.folder, &self.manifest.blob(), ending)
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

    fn write(&self, first: u32, content: &[u8]) -> Result<Vec<u32>, StoreError> {
        let pieces = span::verified(&self.manifest, first, content)?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.held();
        let mut places = Vec::new();
        if pieces.iter().all(|(index, _)| !held.contains(*index)) {
            // The usual case, in one go.
            let start = self.manifest.chunk(first).ok_or(StoreError::NotHeld(first))?.offset;
            self.file.write_all_at(content, start).map_err(StoreError::io("write chunks"))?;
            places.extend(pieces.iter().map(|(index, _)| *index));
        }
        for (index, piece) in pieces {
            for place in self.manifest.places(index) {
                if held.contains(place) || places.contains(&place) {
                    continue;
                }
                let Some(chunk) = self.manifest.chunk(place) else { continue };
                self.file.write_all_at(piece, chunk.offset).map_err(StoreError::io("write a chunk"))?;
                places.push(place);
            }
        }
        let mut state = self.state();
        places.retain(|&place| state.held.insert(place));
        for &place in &places {
            state.verified.insert(place);
        }
        places.sort_unstable();
        Ok(places)
    }

    fn read_run(&self, first: u32, most: u64) -> Result<Bytes, StoreError> {
        let span = self.span(first, most).ok_or(StoreError::NotHeld(first))?;
        let mut content = Buffer::of((span.bytes.end - span.bytes.start) as usize);
        let mut read = 0;
        while read < content.len() {
            match self.file.read_at(&mut content[read..], span.bytes.start + read as u64) {
                Ok(0) => break, // cut short: what is missing is damaged, not unreadable
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_bad_sector(&error) => break, // to be written anew, which often cures it
                Err(error) => return Err(StoreError::io("read chunks")(error)),
            }
        }
        self.verify(&span, Bytes::from(content).slice(..read))
    }

    fn read_cached(&self, first: u32, most: u64) -> Option<Bytes> {
        let span = self.span(first, most).filter(|span| span.unverified.is_empty())?;
        let mut content = Buffer::of((span.bytes.end - span.bytes.start) as usize);
        let mut buffers = [io::IoSliceMut::new(&mut content)];
        let flags = rustix::io::ReadWriteFlags::NOWAIT;
        let read = rustix::io::preadv2(&self.file, &mut buffers, span.bytes.start, flags).ok()?;
        let whole = self.whole(&span, read as u64) as usize;
        (whole > 0).then(|| Bytes::from(content).slice(..whole))
    }

    fn recheck(&self, first: u32, most: u64) -> Result<Checked, StoreError> {
        check::recheck(self, first, most)
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

/// The disk cannot read what it holds there.
pub(super) fn is_bad_sector(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
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
