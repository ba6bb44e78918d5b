//! Where blobs lie on this node: one contiguous file each, which fills in any order.
//!
//! The files are the truth and the sled index beside them is not: it can be lost at any time and
//! is then rebuilt. There is no list of verified chunks on disk either, which a crash could leave
//! ahead of the data: a blob that was not complete when the agent stopped is hashed again, chunk
//! by chunk, when it is opened (3 GB/s a core). A complete blob has another name, given by an
//! atomic rename after its bytes are on the disk.
//!
//! What is handed out is verified: a chunk is hashed when it is written, and again when it is read
//! for the first time since the file was last changed (by its size and change time).
//!
//! All calls block; the node makes them on threads that may.

mod buffer;
mod check;
#[cfg(test)]
mod conformance;
pub mod database;
mod disk;
mod file;
mod folder;
mod index;
mod memory;
mod room;
mod span;

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::core::chunkset::ChunkSet;
use crate::core::id::{BlobId, PackageName};
use crate::core::manifest::Manifest;

pub use buffer::{Buffer, PIECE};
pub use disk::{DiskStore, Limits};
pub use folder::Leftover;
pub use memory::MemoryStore;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The quota or the disk is full, and nothing that may go is left.
    #[error(
        "no room for {needed} more bytes in the store: {why}; free some space, raise cache_size, or unpin a package"
    )]
    NoSpace {
        /// What was asked for, in bytes.
        needed: u64,
        /// Which limit.
        why: String,
    },
    /// The versions of a package take what they may, and none of them may go.
    #[error(
        "no room for {needed} more bytes of {package} in the store: its package_quota here is {quota} bytes, and nothing that may go is left of it; raise it, or unpin a version"
    )]
    OverQuota {
        /// Which package.
        package: String,
        /// What was asked for, in bytes.
        needed: u64,
        /// What it may take, in bytes.
        quota: u64,
    },
    /// The chunk is not held (any more).
    #[error("chunk {0} is not held")]
    NotHeld(u32),
    /// The bytes are not this chunk.
    #[error("chunk {0} does not match its hash")]
    WrongHash(u32),
    /// The file system failed.
    #[error("the store failed to {doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The state directory is in use, or cannot be used.
    #[error("{0}")]
    Unusable(String),
}

impl StoreError {
    fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { needed: 0, why: format!("the disk is full ({source})") }
            }
            _ => Self::Io { doing, source },
        }
    }
}

/// What the store holds of one blob, for lists and for eviction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub blob: BlobId,
    /// Its size when complete, in bytes.
    pub size: u64,
    /// All chunks are there, verified.
    pub complete: bool,
    /// When it was last used, in milliseconds since the epoch.
    pub last_used: u64,
    /// It is never evicted.
    pub pinned: bool,
    /// Somebody reads or fills it.
    pub in_use: bool,
    /// The package that its room is counted for, if that is known.
    pub group: Option<String>,
    /// When all of it was last hashed, in milliseconds since the epoch; 0: not known.
    pub verified: u64,
}

/// What a look at the bytes on the disk has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Bytes that were read and hashed.
    pub bytes: u64,
    /// Chunks that were damaged. They are not held any more.
    pub damaged: Vec<u32>,
    /// Where to go on; none: this was the end.
    pub next: Option<u32>,
}

/// What had to go since a quota was lowered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Blobs that were removed.
    pub blobs: Vec<BlobId>,
    /// Packages whose kept versions take more than they may, and by how many bytes.
    pub over: Vec<(String, u64)>,
    /// Bytes by which what is kept is more than the whole cache takes.
    pub cache_over: u64,
}

/// One blob, complete or filling. While somebody holds it, it is not evicted.
pub trait Blob: Send + Sync {
    /// Its chunk list.
    fn manifest(&self) -> &Arc<Manifest>;

    /// The chunks that are there.
    fn held(&self) -> ChunkSet;

    /// Verifies consecutive chunks from `first` on and writes them to every place where the blob
    /// repeats them; returns the places that were not filled before, in ascending order. Nothing is
    /// written if one of the chunks is wrong.
    ///
    /// # Errors
    /// [`StoreError::NotHeld`] if `content` is not a whole number of chunks of this blob;
    /// [`StoreError::WrongHash`], [`StoreError::NoSpace`], [`StoreError::Io`].
    fn write(&self, first: u32, content: &[u8]) -> Result<Vec<u32>, StoreError>;

    /// Verified content of consecutive chunks from `first` on, as far as they are held: at least
    /// that one, and no more than `most` bytes of several. What turns out damaged is dropped.
    ///
    /// # Errors
    /// Of `first` alone: [`StoreError::NotHeld`], [`StoreError::WrongHash`], [`StoreError::Io`].
    fn read_run(&self, first: u32, most: u64) -> Result<Bytes, StoreError>;

    /// As [`Blob::read_run`], and never waits for a disk: `None` if `first` was not verified yet, or
    /// is not in memory.
    fn read_cached(&self, first: u32, most: u64) -> Option<Bytes>;

    /// One verified chunk.
    ///
    /// # Errors
    /// As [`Blob::read_run`].
    fn read(&self, index: u32) -> Result<Bytes, StoreError> {
        self.read_run(index, 0)
    }

    /// Reads all that is held, and drops what turns out damaged.
    fn check(&self) {
        for index in self.held().iter() {
            // What cannot be read is found out by whoever needs it.
            self.read(index).ok();
        }
    }

    /// Reads what is held from `first` on from the disk, past what the system has of it in memory, some
    /// `most` bytes; hashes it whether it was verified before or not, and drops what turns out damaged.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the file cannot be read at all.
    fn recheck(&self, first: u32, most: u64) -> Result<Checked, StoreError>;

    /// Makes a blob that has all its chunks durable under its final name.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the blob stays usable, and is finished at the next opening.
    fn finish(&self) -> Result<(), StoreError>;
}

/// What turned out damaged of a blob.
#[derive(Debug, Clone)]
pub struct Damaged {
    /// Which.
    pub blob: BlobId,
    /// All of it was held before.
    pub was_complete: bool,
    /// What is not held any more.
    pub chunks: Vec<u32>,
}

/// All blobs of this node.
pub trait Store: Send + Sync {
    /// Opens a blob, making room for it if it is new, and taking over chunks that other blobs
    /// hold already. Its room is counted for a package, if that is known.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`], [`StoreError::OverQuota`], [`StoreError::Io`].
    fn open_in(
        &self,
        manifest: &Arc<Manifest>,
        package: Option<&PackageName>,
    ) -> Result<Arc<dyn Blob>, StoreError>;

    /// Opens a blob of no package that is known.
    ///
    /// # Errors
    /// As [`Store::open_in`].
    fn open(&self, manifest: &Arc<Manifest>) -> Result<Arc<dyn Blob>, StoreError> {
        self.open_in(manifest, None)
    }

    /// A blob of which something is held. That is no use of it: see [`Store::touch`].
    fn get(&self, blob: &BlobId) -> Option<Arc<dyn Blob>>;

    /// The same, if that takes no disk access: it was in use not long ago.
    fn at_hand(&self, blob: &BlobId) -> Option<Arc<dyn Blob>>;

    /// All that is held.
    fn list(&self) -> Vec<Held>;

    /// Notes that a blob was used; written down by the next [`Store::flush`].
    fn touch(&self, blob: &BlobId);

    /// Keeps a blob from being evicted, or does so no more; false if it is not held.
    fn set_pinned(&self, blob: &BlobId, pinned: bool) -> bool;

    /// Notes what package a blob's room is counted for.
    fn set_package(&self, blob: &BlobId, package: &PackageName);

    /// Notes that all of a blob was hashed at this time, in milliseconds since the epoch.
    fn set_verified(&self, blob: &BlobId, at_ms: u64);

    /// Removes what is more than the quotas allow, as far as it may go.
    fn trim(&self) -> Trimmed;

    /// Chunks that turned out damaged when they were read for somebody, since the last call; of very
    /// many, the first ones.
    fn take_damaged(&self) -> Vec<Damaged>;

    /// Files that belong to no blob, and are older than an hour; removed unless this is only a `look`.
    fn leftovers(&self, look: bool) -> Vec<Leftover>;

    /// Removes a blob; false if it is not held, or in use.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn remove(&self, blob: &BlobId) -> Result<bool, StoreError>;

    /// Bytes that are free on its disk; `None` if that cannot be told.
    fn disk_free(&self) -> Option<u64>;

    /// Whether the disk has little more left than what stays free on it.
    fn is_nearly_full(&self) -> bool;

    /// Whether something has changed since that a kill would make unknown again.
    fn is_unsaved(&self) -> bool;

    /// Writes down what is only remembered so far. Blocks.
    fn flush(&self);
}

/// Now, in milliseconds since the epoch.
fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
