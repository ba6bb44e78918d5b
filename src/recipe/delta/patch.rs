//! One block as a patch to old bytes, or plain; compressed.
//!
//! A patch is four lengths (of content and steps as numbers, of additions and of new bytes) and three zstd
//! frames: the steps (new bytes to copy, bytes to go along, how far the old place moves before), what is
//! added to the old bytes, and the new bytes.

use super::align::align;
use crate::recipe::RecipeError;
use crate::recipe::plan::{Read, write};

const CUT_OFF: RecipeError = RecipeError::Malformed("a patch ends early");

/// Bytes compressed on their own.
///
/// # Errors
/// [`RecipeError::Io`] if there is no memory.
pub fn compress(content: &[u8], level: i32) -> Result<Vec<u8>, RecipeError> {
    Ok(zstd::bulk::compress(content, level)?)
}

/// What makes `new` of `old`.
///
/// # Errors
/// As [`compress`].
pub fn make(new: &[u8], old: &[u8], level: i32) -> Result<Vec<u8>, RecipeError> {
    let (mut steps, mut added, mut fresh) = (Vec::new(), Vec::with_capacity(new.len()), Vec::new());
    let (mut at, mut place) = (0, 0);
    for run in align(new, old) {
        fresh.extend_from_slice(&new[at..run.new]);
        write(&mut steps, (run.new - at) as u64);
        write(&mut steps, run.length as u64);
        let moved = run.old as i64 - place;
        write(&mut steps, (moved << 1 ^ moved >> 63) as u64);
        let pairs = new[run.new..run.new + run.length].iter().zip(&old[run.old..]);
        added.extend(pairs.map(|(new, old)| new.wrapping_sub(*old)));
        at = run.new + run.length;
        place = (run.old + run.length) as i64;
    }
    fresh.extend_from_slice(&new[at..]);
    let frames = [&steps, &added, &fresh].map(|part| compress(part, level));
    let [packed_steps, packed_added, packed_fresh] = frames;
    let (packed_steps, packed_added, packed_fresh) = (packed_steps?, packed_added?, packed_fresh?);
    let mut patch = Vec::with_capacity(packed_steps.len() + packed_added.len() + packed_fresh.len() + 32);
    for length in [steps.len(), packed_steps.len(), added.len(), packed_added.len(), fresh.len()] {
        write(&mut patch, length as u64);
    }
    patch.extend(packed_steps);
    patch.extend(packed_added);
    patch.extend(packed_fresh);
    Ok(patch)
}

/// The content of `length` bytes that a stored block holds: a patch to `old`, or plain if there is none.
///
/// # Errors
/// [`RecipeError`], whatever the bytes are.
pub fn apply(stored: &[u8], old: Option<&[u8]>, length: usize) -> Result<Vec<u8>, RecipeError> {
    let Some(old) = old else { return unpack(stored, length) };
    let mut rest = Read(stored);
    let mut number = || rest.number();
    let [steps, packed_steps, added, packed_added, fresh] =
        [number()?, number()?, number()?, number()?, number()?];
    // A step adds at least a byte, or copies one, and is three numbers.
    let bound =
        |part: u64, most: usize| usize::try_from(part).ok().filter(|&part| part <= most).ok_or(CUT_OFF);
    let steps = unpack(rest.take(packed_steps)?, bound(steps, length.saturating_mul(12) + 64)?)?;
    let added = unpack(rest.take(packed_added)?, bound(added, length)?)?;
    let fresh = unpack(rest.0, bound(fresh, length)?)?;
    if added.len() + fresh.len() != length {
        return Err(RecipeError::Malformed("a patch gives more or less than it should"));
    }
    follow(Read(&steps), &added, &fresh, old)
}

fn follow(mut steps: Read, added: &[u8], fresh: &[u8], old: &[u8]) -> Result<Vec<u8>, RecipeError> {
    let mut content = Vec::with_capacity(added.len() + fresh.len());
    let (mut added, mut fresh) = (Read(added), Read(fresh));
    let mut place = 0i64;
    while !steps.0.is_empty() {
        let (copied, along, moved) = (steps.number()?, steps.number()?, steps.number()?);
        content.extend_from_slice(fresh.take(copied)?);
        place = place.checked_add((moved >> 1) as i64 ^ -((moved & 1) as i64)).ok_or(CUT_OFF)?;
        let added = added.take(along)?;
        let start = usize::try_from(place).map_err(|_| CUT_OFF)?;
        let end = start.checked_add(added.len()).ok_or(CUT_OFF)?;
        let old = old.get(start..end).ok_or(RecipeError::Malformed("a patch goes beyond the old bytes"))?;
        content.extend(old.iter().zip(added).map(|(old, added)| old.wrapping_add(*added)));
        place = end as i64;
    }
    content.extend_from_slice(fresh.0);
    if !added.0.is_empty() {
        return Err(RecipeError::Malformed("a patch gives more or less than it should"));
    }
    Ok(content)
}

fn unpack(stored: &[u8], length: usize) -> Result<Vec<u8>, RecipeError> {
    let content = zstd::bulk::decompress(stored, length)?;
    if content.len() != length {
        return Err(RecipeError::Malformed("a block has another length than it should"));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_patch_gives_what_it_was_made_of(
            old in proptest::collection::vec(0u8..4, 0..3000),
            pieces in proptest::collection::vec((0usize..3000, 0usize..800, any::<u8>()), 0..8),
        ) {
            let mut new = Vec::new();
            for (start, length, byte) in pieces {
                let end = (start + length).min(old.len());
                new.extend_from_slice(&old[start.min(end)..end]);
                new.push(byte);
            }
            let patch = make(&new, &old, 3).expect("memory");
            prop_assert_eq!(apply(&patch, Some(&old), new.len()).expect("own patch"), new);
        }

        #[test]
        fn an_altered_patch_is_refused_or_gives_so_many_bytes(at in 0usize..500, flip in 1u8..=255, cut in 0usize..3) {
            let old: Vec<u8> = (0..2000u32).map(|n| ((n * n) >> 3) as u8).collect();
            let mut new = old.clone();
            new.rotate_left(700);
            new[100] ^= 1;
            let mut patch = make(&new, &old, 3).expect("memory");
            let length = patch.len();
            patch[at % length] ^= flip;
            patch.truncate(length - cut % 2 * (at % length));
            if let Ok(content) = apply(&patch, Some(&old), new.len()) {
                prop_assert_eq!(content.len(), new.len());
            }
            prop_assert!(apply(&patch, None, new.len()).map_or(true, |content| content.len() == new.len()));
        }
    }
}
