//! Reading content back from the disk, to hash it again.
//!
//! What the system has in memory says nothing of the disk, and whatever is read only to be hashed
//! would push out of memory what clients want. So the file is opened past that memory (`O_DIRECT`).
//! Where the file system cannot do that, what it has in memory of the place is let go before and after.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Advice, OFlags, fadvise};

use super::file::{BlobFile, is_bad_sector};
use super::{Blob, Checked, StoreError};
use crate::core::id::ChunkId;
use crate::core::manifest::Chunk;

/// Direct reads begin, end and lie in memory at multiples of this, in bytes.
const BLOCK: u64 = 4096;

/// A blob's file as it lies on the disk.
struct Disk {
    file: File,
    direct: bool,
    memory: Vec<u8>,
}

/// Hashes some `most` bytes of what a blob holds, from a chunk on.
pub(super) fn recheck(blob: &BlobFile, first: u32, most: u64) -> Result<Checked, StoreError> {
    let mut disk = open(blob)?;
    let (held, mut checked) = (blob.held(), Checked::default());
    for index in held.iter_from(first) {
        let Some(chunk) = blob.manifest().chunk(index) else { break };
        if checked.bytes >= most {
            checked.next = Some(index);
            break;
        }
        if !disk.is_right(chunk)? {
            checked.damaged.push(index);
        }
        checked.bytes += u64::from(chunk.length);
    }
    blob.drop_chunks(&checked.damaged);
    Ok(checked)
}

/// It may get its other name at any moment.
fn open(blob: &BlobFile) -> Result<Disk, StoreError> {
    let mut result = Disk::open(&blob.place());
    for _ in 0..3 {
        match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => result = Disk::open(&blob.place()),
            _ => break,
        }
    }
    result.map_err(StoreError::io("open a blob file"))
}

impl Disk {
    fn open(path: &Path) -> io::Result<Self> {
        let direct =
            OpenOptions::new().read(true).custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path);
        match direct {
            Ok(file) => Ok(Self { file, direct: true, memory: Vec::new() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
            Err(_) => Ok(Self { file: File::open(path)?, direct: false, memory: Vec::new() }),
        }
    }

    fn is_right(&mut self, chunk: &Chunk) -> Result<bool, StoreError> {
        let range = chunk.range();
        let blocks = range.start / BLOCK * BLOCK..range.end.next_multiple_of(BLOCK);
        let mut read = self.read(&blocks);
        if self.direct && matches!(&read, Err(error) if error.kind() == io::ErrorKind::InvalidInput) {
            // Some file systems say only now that they cannot.
            self.direct = false;
            read = rustix::fs::fcntl_setfl(&self.file, OFlags::empty())
                .map_err(io::Error::from)
                .and_then(|()| self.read(&blocks));
        }
        let content = match read {
            Ok(place) => self.memory.get(place).unwrap_or_default(),
            Err(error) if is_bad_sector(&error) => return Ok(false),
            Err(error) => return Err(StoreError::io("read chunks")(error)),
        };
        let place = (range.start - blocks.start) as usize..(range.end - blocks.start) as usize;
        Ok(content.get(place).is_some_and(|content| ChunkId::of(content) == chunk.id))
    }

    /// What lies in whole blocks, less at the end of the file: where in memory it is then.
    fn read(&mut self, blocks: &Range<u64>) -> io::Result<Range<usize>> {
        self.let_go(blocks);
        let length = (blocks.end - blocks.start) as usize;
        if self.memory.len() < length + BLOCK as usize {
            self.memory = vec![0; length + BLOCK as usize];
        }
        let start = self.memory.as_ptr().align_offset(BLOCK as usize);
        let memory = self.memory.get_mut(start..start + length).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut read = 0;
        while read < memory.len() {
            match self.file.read_at(&mut memory[read..], blocks.start + read as u64) {
                Ok(0) => break,
                // A direct read that does not end at a block has come to the end of the file.
                Ok(more) if self.direct && !(more as u64).is_multiple_of(BLOCK) => {
                    read += more;
                    break;
                }
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.let_go(blocks);
        Ok(start..start + read)
    }

    fn let_go(&self, blocks: &Range<u64>) {
        if !self.direct {
            let length = std::num::NonZeroU64::new(blocks.end - blocks.start);
            fadvise(&self.file, blocks.start, length, Advice::DontNeed).ok();
        }
    }
}
