//! Consecutive chunks of one manifest.

use std::ops::Range;

use super::head::{HEAD, Head, Kind};
use super::{BundleError, MAX_RUN};
use crate::core::id::ChunkId;
use crate::core::manifest::{Chunk, Manifest};

/// How the chunks of a run are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As in a pack: with the lengths that the manifest gives as stored, shorter means zstd.
    Packed,
    /// As they are.
    Plain,
}

/// Consecutive chunks, and their payload's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Which manifest, counted from 0 in their order in the bundle.
    pub manifest: u32,
    /// The first chunk.
    pub first: u32,
    /// How many chunks.
    pub count: u32,
    /// Bytes of payload.
    pub length: u32,
    /// How they are stored.
    pub form: Form,
}

/// A chunk's place in the payload of its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The chunk's index.
    pub index: u32,
    /// The chunk.
    pub chunk: Chunk,
    /// Its bytes in the payload.
    pub place: Range<usize>,
    /// They are compressed.
    pub packed: bool,
}

impl Piece {
    /// Whether this is the chunk's content, once unpacked.
    pub fn is(&self, content: &[u8]) -> bool {
        content.len() == self.chunk.length as usize && ChunkId::of(content) == self.chunk.id
    }
}

impl Run {
    /// The indices of its chunks.
    pub fn chunks(&self) -> Range<u32> {
        self.first..self.first.saturating_add(self.count)
    }

    /// Where each chunk lies in the payload; `None` if the run is not one of this manifest.
    pub fn pieces(&self, manifest: &Manifest) -> Option<Vec<Piece>> {
        let chunks = manifest.chunks().get(self.first as usize..self.chunks().end as usize)?;
        let mut pieces = Vec::with_capacity(chunks.len());
        let mut at = 0;
        for (index, &chunk) in self.chunks().zip(chunks) {
            let packed = self.form == Form::Packed && chunk.stored < chunk.length;
            let end = at + if packed { chunk.stored } else { chunk.length } as usize;
            pieces.push(Piece { index, chunk, place: at..end, packed });
            at = end;
        }
        (at == self.length as usize).then_some(pieces)
    }

    pub(super) fn head(&self, kind: Kind) -> Head {
        let form = match self.form {
            Form::Packed => 0,
            Form::Plain => 1,
        };
        let Self { manifest, first, count, length, .. } = *self;
        Head { kind, form, manifest, first, count, length }
    }

    /// The head that stands for a run whose reader holds it already.
    pub fn held(&self) -> [u8; HEAD] {
        self.head(Kind::Held).encode()
    }

    pub(super) fn of(head: &Head, at: u64) -> Result<Self, BundleError> {
        let damaged = |what| BundleError::Damaged { at, what };
        let form = match head.form {
            0 => Form::Packed,
            1 => Form::Plain,
            _ => return Err(damaged("a run in a form that this version does not know")),
        };
        let Head { manifest, first, count, length, .. } = *head;
        if count == 0 || length == 0 || length > MAX_RUN || first.checked_add(count).is_none() {
            return Err(damaged("a run of no possible length"));
        }
        Ok(Self { manifest, first, count, length, form })
    }
}
