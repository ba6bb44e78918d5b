//! What a flight owes its throttle: bytes as a router counts them.
//!
//! The system tells of what crossed now and then, read or not and with its headers; content is known
//! at once. Whichever is more has crossed at least, so what is owed follows the router's count closely
//! and is the same in the end.

use std::sync::{Mutex, PoisonError};

/// Of one flight.
#[derive(Debug, Default)]
pub(super) struct Toll {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    crossed: u64,
    content: u64,
    paid: u64,
}

impl Toll {
    /// So much more has crossed.
    pub(super) fn crossed(&self, bytes: u64) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).crossed += bytes;
    }

    /// Content has been read: what is to be paid for now.
    pub(super) fn owed(&self, content: u64) -> u64 {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.content += content;
        let owed = counts.crossed.max(counts.content).saturating_sub(counts.paid);
        counts.paid += owed;
        owed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_end_all_that_crossed_is_paid_once() {
        let toll = Toll::default();
        assert_eq!(toll.owed(1000), 1000, "content is known before the system tells of it");
        toll.crossed(1040);
        assert_eq!(toll.owed(0), 40);
        toll.crossed(5000);
        assert_eq!(toll.owed(1000), 5000, "what waits to be read has crossed too");
        assert_eq!(toll.owed(1000), 0);
    }
}
