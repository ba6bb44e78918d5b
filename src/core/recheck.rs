//! When content that lies on a disk is to be read and hashed again.
//!
//! Every blob is once within an interval, and not all at the same time though they may have come at
//! the same time: each is due somewhere in the second half of the interval, at a place that its own
//! name decides. So nothing has to be remembered but when a blob was last verified.

use super::id::BlobId;

/// When a blob is due, in milliseconds since the epoch; `verified` and `interval` likewise.
pub fn due(blob: &BlobId, verified: u64, interval: u64) -> u64 {
    let [first, second, ..] = blob.as_bytes();
    let place = u64::from(u16::from_be_bytes([*first, *second]));
    let half = interval / 2;
    // Divided first: an interval of a century times 65,536 still fits, and so does any other then.
    verified.saturating_add(half).saturating_add(half / 65_536 * place + half % 65_536 * place / 65_536)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn everything_is_due_once_within_the_interval(name: [u8; 32], verified in 0u64..1 << 50, interval: u64) {
            let due = due(&BlobId::from_bytes(name), verified, interval);
            prop_assert!(due >= verified.saturating_add(interval / 2));
            prop_assert!(due <= verified.saturating_add(interval));
        }
    }

    #[test]
    fn what_came_together_is_not_due_together() {
        let times: Vec<u64> = (0..100u8).map(|n| due(&BlobId::of(&[n]), 0, 1000)).collect();
        let early = times.iter().filter(|at| **at < 750).count();
        assert!((25..75).contains(&early), "{early} of 100 in the first half of the time");
    }
}
