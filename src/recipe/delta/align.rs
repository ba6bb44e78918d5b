//! Which old bytes to lay beside which new ones.

/// So many bytes that are the same, one after the other, are no chance.
const SEED: usize = 24;
/// Every so many old bytes a seed is looked up.
const STEP: usize = 4;
const BITS: u32 = 20;
/// Old places of one seed that are tried.
const TRIES: usize = 16;
/// Another place has to fit so much better than the one that is gone along, in bytes.
const BETTER: usize = 8;
/// A run is not followed further when it has lost so much.
const LOST: i64 = 2000;
const NONE: u32 = u32::MAX;

/// A run of new bytes, and the old ones beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Where it begins in the new bytes.
    pub(super) new: usize,
    /// Where it begins in the old ones.
    pub(super) old: usize,
    /// How long it is.
    pub(super) length: usize,
}

/// The places of seeds in the old bytes.
struct Seeds<'a> {
    old: &'a [u8],
    first: Vec<u32>,
    next: Vec<u32>,
}

impl<'a> Seeds<'a> {
    fn of(old: &'a [u8]) -> Self {
        let mut seeds = Self { old, first: vec![NONE; 1 << BITS], next: vec![NONE; old.len() / STEP + 1] };
        for at in (0..(old.len() + 1).saturating_sub(SEED)).step_by(STEP) {
            let (slot, seed) = (hash(&old[at..]), at / STEP);
            seeds.next[seed] = std::mem::replace(&mut seeds.first[slot], seed as u32);
        }
        seeds
    }

    /// The old bytes that begin like these for the longest: where, and how long.
    fn find(&self, new: &[u8]) -> Option<(usize, usize)> {
        let mut best = (0, 0);
        let mut seed = self.first[hash(new)];
        for _ in 0..TRIES {
            if seed == NONE {
                break;
            }
            let at = seed as usize * STEP;
            let length = alike(new, &self.old[at..]);
            if length > best.1 {
                best = (at, length);
            }
            seed = self.next[seed as usize];
        }
        (best.1 >= SEED).then_some(best)
    }
}

fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

fn hash(bytes: &[u8]) -> usize {
    const A: u64 = 0x9e37_79b9_7f4a_7c15;
    let mixed = word(bytes).wrapping_mul(A) ^ word(&bytes[8..]).rotate_left(23);
    let mixed = mixed.wrapping_mul(0xd6e8_feb8_6659_fd93) ^ word(&bytes[16..]).rotate_left(41);
    (mixed.wrapping_mul(A) >> (64 - BITS)) as usize
}

/// How many bytes are the same from the beginning on.
fn alike(a: &[u8], b: &[u8]) -> usize {
    let words = a.chunks_exact(8).zip(b.chunks_exact(8));
    let whole = words.take_while(|(a, b)| a == b).count() * 8;
    whole + a[whole..].iter().zip(&b[whole..]).take_while(|(a, b)| a == b).count()
}

/// The old byte beside a new one.
fn beside(old: &[u8], new: usize, shift: i64) -> Option<u8> {
    usize::try_from(new as i64 + shift).ok().and_then(|at| old.get(at).copied())
}

/// Runs in the order of the new bytes, which do not overlap there. New bytes of no run are like nothing old.
pub(super) fn align(new: &[u8], old: &[u8]) -> Vec<Run> {
    let mut runs = anchors(new, old);
    for at in 0..runs.len() {
        let end = runs.get(at + 1).map_or(new.len(), |next| next.0.start);
        let (run, shift) = &mut runs[at];
        run.end += grow((run.end..end).map(|at| beside(old, at, *shift).map(|byte| byte == new[at])));
        let begin = if at == 0 { 0 } else { runs[at - 1].0.end };
        let (run, shift) = &mut runs[at];
        run.start -=
            grow((begin..run.start).rev().map(|at| beside(old, at, *shift).map(|byte| byte == new[at])));
    }
    let run = |(run, shift): (std::ops::Range<usize>, i64)| Run {
        new: run.start,
        old: (run.start as i64 + shift) as usize,
        length: run.len(),
    };
    runs.into_iter().filter(|(run, _)| !run.is_empty()).map(run).collect()
}

/// How far a run grows over bytes that are the same or not: to where most of them are.
fn grow(same: impl Iterator<Item = Option<bool>>) -> usize {
    let (mut score, mut best, mut length) = (0i64, 0, 0);
    for (at, same) in same.map_while(|same| same).enumerate() {
        score += if same { 1 } else { -1 };
        if score > best {
            (best, length) = (score, at + 1);
        }
        if score < best - LOST {
            break;
        }
    }
    length
}

/// Runs of new bytes that are found in the old ones, and by how much they have moved.
fn anchors(new: &[u8], old: &[u8]) -> Vec<(std::ops::Range<usize>, i64)> {
    let seeds = Seeds::of(old);
    let mut runs: Vec<(std::ops::Range<usize>, i64)> = Vec::new();
    let (mut at, mut shift) = (0, 0i64);
    while at + SEED <= new.len() {
        let along = usize::try_from(at as i64 + shift).ok().and_then(|place| old.get(place..));
        let along = along.map_or(0, |old| alike(&new[at..], old));
        let length = if along >= SEED {
            along
        } else {
            let Some((place, length)) = seeds.find(&new[at..]) else {
                at += 1;
                continue;
            };
            let fits = (at..at + length).filter(|&at| beside(old, at, shift) == Some(new[at])).count();
            if length <= fits + BETTER {
                at += 1;
                continue;
            }
            shift = place as i64 - at as i64;
            length
        };
        match runs.last_mut() {
            Some((run, by)) if *by == shift => run.end = at + length,
            _ => runs.push((at..at + length, shift)),
        }
        at += length;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed;
        let byte = |_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        };
        (0..length).map(byte).collect()
    }

    #[test]
    fn moved_bytes_are_found_and_changes_are_gone_through() {
        let old = noise(1, 10_000);
        let mut new = noise(2, 100);
        new.extend(&old[5000..9000]);
        new.extend(&old[0..3000]);
        for at in (200..3000).step_by(40) {
            new[at] ^= 1; // an address that has changed
        }
        let runs = align(&new, &old);
        assert_eq!(runs.len(), 2, "{runs:?}");
        assert_eq!((runs[0].new, runs[0].old), (100, 5000));
        assert_eq!((runs[1].new, runs[1].old, runs[1].length), (4100, 0, 3000));
    }

    #[test]
    fn anything_has_runs_that_fit_into_it() {
        for (new, old) in [(0, 0), (10, 0), (0, 10), (23, 23), (24, 24), (1000, 24), (24, 1000)] {
            let (new, old) = (vec![7; new], vec![7; old]);
            let mut end = 0;
            for run in align(&new, &old) {
                assert!(run.new >= end && run.old + run.length <= old.len());
                end = run.new + run.length;
            }
            assert!(end <= new.len());
        }
    }
}
