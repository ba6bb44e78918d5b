//! Memory for content on its way, used again: a fresh large allocation costs more than what is
//! copied into it (the system clears every page, and then we would).

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Bytes that are read, hashed, written and sent at a time.
pub const PIECE: usize = 512 << 10;
/// Less than this is not worth keeping.
const SMALL: usize = 64 << 10;
/// Buffers that are kept while nobody uses them.
const KEPT: usize = 16;

/// Shared by all of the process, as the memory is.
static KEEP: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

fn keep() -> MutexGuard<'static, Vec<Vec<u8>>> {
    KEEP.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Some bytes, with whatever was in them before.
#[derive(Debug)]
pub struct Buffer {
    memory: Vec<u8>,
    length: usize,
}

impl Buffer {
    /// A buffer of this length, in bytes.
    pub fn of(length: usize) -> Self {
        if !(SMALL..=PIECE).contains(&length) {
            return Self { memory: vec![0; length], length };
        }
        let memory = keep().pop().unwrap_or_else(|| vec![0; PIECE]);
        Self { memory, length }
    }

    /// Gives memory that nobody uses back to the system.
    pub fn release() {
        let unused = std::mem::take(&mut *keep());
        drop(unused);
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[..self.length]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.length]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Buffer> for Bytes {
    fn from(buffer: Buffer) -> Self {
        Self::from_owner(buffer)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.memory.len() == PIECE {
            let mut keep = keep();
            if keep.len() < KEPT {
                keep.push(std::mem::take(&mut self.memory));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_what_was_asked_for() {
        for length in [0, 1, SMALL, SMALL + 1, PIECE, PIECE + 1] {
            let mut buffer = Buffer::of(length);
            buffer.fill(7);
            let bytes = Bytes::from(buffer);
            assert!(bytes.len() == length && bytes.iter().all(|&it| it == 7));
        }
    }
}
