//! What a flight owes its throttle: bytes as a router counts them.
//!
//! The system tells of what crossed now and then, read or not and with its headers; content is known
//! at once. Whichever is more has crossed at least, so what is owed follows the router's count closely
//! and is the same in the end.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
    round_trip: Duration,
}

impl Toll {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So much more has crossed, over a connection of this round trip.
    pub(super) fn crossed(&self, bytes: u64, round_trip: Duration) {
        let mut counts = self.counts();
        counts.crossed += bytes;
        if !round_trip.is_zero() {
            counts.round_trip = round_trip;
        }
    }

    /// The WAN's round trip, as it was seen last; zero if it was not.
    pub(super) fn round_trip(&self) -> Duration {
        self.counts().round_trip
    }

    /// Content has been read: what is to be paid for now.
    pub(super) fn owed(&self, content: u64) -> u64 {
        let mut counts = self.counts();
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
        toll.crossed(1040, Duration::ZERO);
        assert_eq!(toll.owed(0), 40);
        toll.crossed(5000, Duration::from_millis(40));
        assert_eq!(toll.owed(1000), 5000, "what waits to be read has crossed too");
        assert_eq!(toll.owed(1000), 0);
        assert_eq!(toll.round_trip(), Duration::from_millis(40));
    }
}
