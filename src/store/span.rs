//! Runs of consecutive chunks: how far one reaches, and whether its bytes are right.

use std::ops::Range;

use super::StoreError;
use crate::core::id::ChunkId;
use crate::core::manifest::Manifest;

/// The chunks from `first` on that are all held and take at most `most` bytes together, the first
/// one whatever its length; `None` if that one is not held.
pub(super) fn run(
    manifest: &Manifest,
    first: u32,
    most: u64,
    held: impl Fn(u32) -> bool,
) -> Option<Range<u32>> {
    let start = manifest.chunk(first).filter(|_| held(first))?.offset;
    let fits = |index: &u32| {
        manifest.chunk(*index).is_some_and(|chunk| chunk.range().end - start <= most) && held(*index)
    };
    let end = (first + 1..manifest.count()).take_while(fits).last().map_or(first + 1, |last| last + 1);
    Some(first..end)
}

/// Where a run lies in the blob, in bytes.
pub(super) fn bytes(manifest: &Manifest, run: &Range<u32>) -> Option<Range<u64>> {
    Some(manifest.chunk(run.start)?.offset..manifest.chunk(run.end.checked_sub(1)?)?.range().end)
}

/// Cuts content into the consecutive chunks that it is, each hashed and found right.
pub(super) fn verified<'a>(
    manifest: &Manifest,
    first: u32,
    mut content: &'a [u8],
) -> Result<Vec<(u32, &'a [u8])>, StoreError> {
    let mut pieces = Vec::new();
    let mut index = first;
    loop {
        let chunk = manifest.chunk(index).ok_or(StoreError::NotHeld(index))?;
        let piece = content.split_at_checked(chunk.length as usize);
        let (piece, rest) = piece.ok_or(StoreError::WrongHash(index))?;
        if ChunkId::of(piece) != chunk.id {
            return Err(StoreError::WrongHash(index));
        }
        pieces.push((index, piece));
        if rest.is_empty() {
            return Ok(pieces);
        }
        (index, content) = (index + 1, rest);
    }
}
