//! Runs that are hashed and written together, in one turn of a thread that may block.

use std::sync::Arc;

use super::feed::Section;
use super::intake::{Written, write};
use crate::core::bundle::Run;
use crate::store::{Blob, Buffer, StoreError};

/// Bytes of a turn. To hand a turn over, and to book what came of it, takes as long as to hash and write
/// some 200 kB.
const FULL: usize = 2 << 20;

/// The bytes of a run.
pub(super) enum Payload {
    /// They have come.
    Here(Buffer),
    /// They are in a file, to be read where they are verified.
    There(Section),
}

/// Runs of one manifest, in the order of the bundle.
pub(super) struct Turn {
    pub(super) manifest: u32,
    blob: Arc<dyn Blob>,
    runs: Vec<(Run, Payload)>,
    bytes: usize,
}

impl Turn {
    pub(super) fn new(manifest: u32, blob: Arc<dyn Blob>) -> Self {
        Self { manifest, blob, runs: Vec::new(), bytes: 0 }
    }

    pub(super) fn push(&mut self, run: Run, payload: Payload) {
        self.bytes += run.length as usize;
        self.runs.push((run, payload));
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= FULL
    }

    /// Verifies and writes all of them, up to one that cannot be: what was written before it counts.
    pub(super) fn work(self) -> (Written, Result<(), StoreError>) {
        let mut all = Written::default();
        for (run, payload) in self.runs {
            match work(&*self.blob, &run, payload) {
                Ok(written) => all.add(written),
                Err(error) => return (all, Err(error)),
            }
        }
        (all, Ok(()))
    }
}

fn work(blob: &dyn Blob, run: &Run, payload: Payload) -> Result<Written, StoreError> {
    let mut section = match payload {
        Payload::Here(payload) => return write(blob, run, &payload),
        Payload::There(section) => section,
    };
    let mut payload = Buffer::of(run.length as usize);
    match section.fill(&mut payload) {
        Ok(came) if came == payload.len() => write(blob, run, &payload),
        Ok(_) => Ok(Written { damaged: run.chunks().collect(), ..Written::default() }),
        Err(why) => Err(StoreError::Unusable(why)),
    }
}
