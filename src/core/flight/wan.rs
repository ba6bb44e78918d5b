//! Which chunks to ask of the origin in one request.

use std::time::Duration;

use crate::core::chunkset::ChunkSet;
use crate::core::ledger::WanReason;
use crate::core::manifest::Manifest;

/// The bytes of one run. Long enough that a request's headers cost 0.05 %, short enough that
/// what a broken run repeats is little.
const RUN_BYTES: u64 = 2 << 20;
/// How far to look past chunks that lie elsewhere for the run's next chunk.
const LOOK_AHEAD: usize = 256;
/// Wait before another try after a failure, doubled for each in a row.
const RETRY: Duration = Duration::from_millis(250);
const LONGEST_RETRY: Duration = Duration::from_secs(4);

/// The next run: chunks of `need` from `cursor` on (then from the start) that lie back to back in
/// one pack and have one reason. Empty if nothing is needed.
///
/// After an upgrade the missing chunks are scattered over the blob, and yet lie back to back in
/// the pack that the publish added: runs go by the pack's order.
pub fn next_run(
    manifest: &Manifest,
    need: &ChunkSet,
    cursor: u32,
    reason_of: impl Fn(u32) -> WanReason,
) -> (Vec<u32>, WanReason) {
    let needed = |index: &u32| !manifest.is_repeat(*index);
    let start = need.iter().filter(needed).find(|&index| index >= cursor);
    let Some(first) = start.or_else(|| need.iter().find(needed)) else {
        return (Vec::new(), WanReason::Cold);
    };
    let reason = reason_of(first);
    let mut run = vec![first];
    let mut bytes = 0;
    let mut end = None;
    for index in need.iter().filter(|&index| index > first).filter(needed).take(LOOK_AHEAD + run.len()) {
        let Some(last) = run.last().and_then(|&last| manifest.chunk(last)) else { break };
        let at = *end.get_or_insert((last.pack, last.pack_range().end));
        let Some(chunk) = manifest.chunk(index) else { break };
        if (chunk.pack, chunk.pack_offset) != at || reason_of(index) != reason {
            continue;
        }
        bytes += u64::from(chunk.stored);
        if bytes > RUN_BYTES {
            break;
        }
        end = Some((chunk.pack, chunk.pack_range().end));
        run.push(index);
    }
    (run, reason)
}

/// How long to wait after so many failures in a row.
pub fn retry_after(failures: u32) -> Duration {
    (RETRY * 2u32.pow(failures.saturating_sub(1).min(5))).min(LONGEST_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::id::{BlobId, ChunkId, PackId};
    use crate::core::manifest::Chunk;

    /// Chunks of 100,000 bytes at the given places: (pack, offset in chunks).
    fn manifest(places: &[(u32, u64)]) -> Manifest {
        let chunks: Vec<Chunk> = places
            .iter()
            .enumerate()
            .map(|(n, &(pack, at))| Chunk {
                id: ChunkId::of(&n.to_le_bytes()),
                offset: 0,
                length: 100_000,
                pack,
                pack_offset: at * 100_000,
                stored: 100_000,
            })
            .collect();
        Manifest::build(BlobId::of(b""), [0; 32], vec![PackId::of(b"0"), PackId::of(b"1")], &chunks)
            .expect("consistent")
    }

    #[test]
    fn runs_go_by_the_pack() {
        let manifest = manifest(&[(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (0, 9), (0, 3)]);
        let run = |need: &[u32], cursor| {
            next_run(&manifest, &need.iter().copied().collect(), cursor, |_| WanReason::Cold).0
        };
        assert_eq!(run(&[0, 1, 2, 3, 4, 5, 6], 0), [0, 2, 4, 6]);
        assert_eq!(run(&[1, 3, 5], 1), [1, 3]);
        assert_eq!(run(&[0, 5], 6), [0], "from the start when nothing is left behind the cursor");
        assert_eq!(run(&[], 0), [0u32; 0]);
    }

    #[test]
    fn runs_are_bounded_and_of_one_reason() {
        let places: Vec<(u32, u64)> = (0..100).map(|n| (0, n)).collect();
        let manifest = manifest(&places);
        let all = ChunkSet::full(100);
        let (run, _) = next_run(&manifest, &all, 0, |_| WanReason::Cold);
        assert!((20..23).contains(&run.len()), "{}", run.len());
        let reason = |index| if index < 3 { WanReason::Takeover } else { WanReason::Cold };
        assert_eq!(next_run(&manifest, &all, 0, reason), (vec![0, 1, 2], WanReason::Takeover));
    }
}
