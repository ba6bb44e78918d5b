//! Rebuilding a blob: blocks in, chunks out. Runs on a thread of its own.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::core::chunkset::ChunkSet;
use crate::core::recipe::{Block, Head};
use crate::recipe::{Plan, RecipeError, Span, delta, rebuild};
use crate::store::{Blob, PIECE};

/// Where what is rebuilt goes, in order.
pub(in crate::node) trait Target: Write {
    /// All of it has been written.
    ///
    /// # Errors
    /// [`RecipeError`]: that is not what was to be rebuilt.
    fn finish(self) -> Result<(), RecipeError>;
}

/// A block as it came.
pub(super) type Came = (Block, Bytes);
/// Chunks that were written, and the places that were not filled before.
pub(super) type Stored = (Vec<u32>, Vec<u32>);

/// Since when the thread has worked without giving anything: none while it waits for blocks.
#[derive(Debug, Clone, Default)]
pub(in crate::node) struct Busy(Arc<Mutex<Option<Instant>>>);

impl Busy {
    pub(in crate::node) fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// For how long.
    pub(super) fn time(&self) -> Duration {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// What a rebuild took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::node) struct Took {
    /// Applying patches.
    pub(super) patching: Duration,
    /// Compressing again, and writing.
    pub(super) rebuilding: Duration,
}

/// Rebuilds what a recipe is for from its blocks.
///
/// # Errors
/// [`RecipeError`]: the blocks end early, or give something else than the blob.
pub(super) fn run(
    head: &Head,
    old: Option<Span>,
    blocks: mpsc::Receiver<Came>,
    mut target: impl Target,
    busy: &Busy,
) -> Result<Took, RecipeError> {
    let plan = Plan::decode(&head.plan)?;
    if plan.contents() != head.contents() {
        return Err(RecipeError::Malformed("the blocks are more or less than the plan takes"));
    }
    let begun = Instant::now();
    busy.set(Some(begun));
    let mut contents = Contents {
        busy,
        blocks,
        old,
        content: Vec::new(),
        at: 0,
        waited: Duration::ZERO,
        patched: Duration::ZERO,
    };
    rebuild(&plan, &mut contents, &mut target)?;
    target.finish()?;
    let rebuilding = begun.elapsed().saturating_sub(contents.waited + contents.patched);
    Ok(Took { patching: contents.patched, rebuilding })
}

/// The contents, block by block.
struct Contents<'a> {
    busy: &'a Busy,
    blocks: mpsc::Receiver<Came>,
    old: Option<Span>,
    content: Vec<u8>,
    at: usize,
    waited: Duration,
    patched: Duration,
}

impl Contents<'_> {
    fn next(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        self.busy.set(None);
        let came = self.blocks.blocking_recv();
        self.busy.set(Some(Instant::now()));
        let (block, bytes) = came.ok_or_else(|| io::Error::other("the recipe ended early"))?;
        let got = Instant::now();
        self.waited += got - begun;
        let old = match &self.old {
            Some(old) if !block.from.is_empty() => Some(old.ranges(&block.from)?),
            _ => None,
        };
        let applied = delta::apply(&bytes, old.as_deref(), block.length as usize);
        self.content = applied.map_err(io::Error::other)?;
        self.at = 0;
        self.patched += got.elapsed();
        Ok(())
    }
}

impl Read for Contents<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.content.len() {
            self.next()?;
        }
        let most = buffer.len().min(self.content.len() - self.at);
        buffer[..most].copy_from_slice(&self.content[self.at..self.at + most]);
        self.at += most;
        Ok(most)
    }
}

/// Cuts what is rebuilt into the blob's chunks.
pub(super) struct Chunks {
    blob: Arc<dyn Blob>,
    held: ChunkSet,
    stored: mpsc::Sender<Stored>,
    busy: Busy,
    /// The chunk that the buffer begins with.
    next: u32,
    buffer: Vec<u8>,
}

impl Chunks {
    pub(super) fn new(blob: Arc<dyn Blob>, stored: mpsc::Sender<Stored>, busy: Busy) -> Self {
        Self { held: blob.held(), blob, stored, busy, next: 0, buffer: Vec::new() }
    }

    /// Stores the chunks that are whole.
    fn store(&mut self) -> io::Result<()> {
        let manifest = self.blob.manifest().clone();
        let (mut length, mut after) = (0, self.next);
        while let Some(chunk) = manifest.chunk(after)
            && length + chunk.length as usize <= self.buffer.len()
        {
            length += chunk.length as usize;
            after += 1;
        }
        let chunks: Vec<u32> = (self.next..after).collect();
        if chunks.iter().any(|&chunk| !self.held.contains(chunk)) {
            let places = self.blob.write(self.next, &self.buffer[..length]).map_err(io::Error::other)?;
            let gone = |_| io::Error::other("the flight is over");
            self.stored.blocking_send((chunks, places)).map_err(gone)?;
        }
        self.busy.set(Some(Instant::now()));
        self.buffer.drain(..length);
        self.next = after;
        Ok(())
    }
}

impl Target for Chunks {
    fn finish(mut self) -> Result<(), RecipeError> {
        self.store()?;
        if self.next != self.blob.manifest().count() || !self.buffer.is_empty() {
            return Err(RecipeError::Malformed("it gives more or less than the blob"));
        }
        Ok(())
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.store()?;
            if self.next == self.blob.manifest().count() && !self.buffer.is_empty() {
                return Err(io::Error::other("it gives more than the blob"));
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
