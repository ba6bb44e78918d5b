//! What a pull owes its throttle: bytes as a router counts them.
//!
//! Content is known at once; the system tells now and then of what has crossed, headers included. What may
//! cross ahead of who reads is owed as soon as it is asked for, and no more when it is read: so a lead that
//! is lost leaves nothing unpaid, and each read owes as much as it makes room for.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::origin::Carried;

/// Of some connections.
#[derive(Debug, Default)]
pub(super) struct Toll {
    counts: Mutex<Counts>,
}

/// All in bytes.
#[derive(Debug, Default)]
struct Counts {
    /// Payload and headers, read or not.
    crossed: u64,
    headers: u64,
    /// Payload, as the system was asked for it.
    read: u64,
    /// Of it, content, which is known sooner.
    content: u64,
    /// What may cross before it is read.
    ahead: u64,
    paid: u64,
    readers: usize,
    round_trip: Duration,
}

impl Counts {
    fn due(&self) -> u64 {
        let expected = self.read.max(self.content) + self.headers + self.ahead;
        expected.max(self.crossed)
    }

    fn pay(&mut self) -> u64 {
        let owed = self.due().saturating_sub(self.paid);
        self.paid += owed;
        owed
    }
}

impl Toll {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So much more was carried. Nobody waits for what comes while nobody reads an answer.
    pub(super) fn carried(&self, carried: &Carried) {
        let mut counts = self.counts();
        counts.crossed += carried.crossed;
        counts.headers += carried.wire.headers;
        counts.read += carried.wire.read;
        if !carried.round_trip.is_zero() {
            counts.round_trip = carried.round_trip;
        }
        if counts.readers == 0 {
            counts.pay();
        }
    }

    /// The WAN's round trip, as it was seen last; zero if it was not.
    pub(super) fn round_trip(&self) -> Duration {
        self.counts().round_trip
    }

    /// Who reads an answer, or is about to.
    pub(super) fn readers(&self) -> usize {
        self.counts().readers
    }

    /// Somebody is about to read an answer.
    pub(super) fn enter(&self) {
        self.counts().readers += 1;
    }

    /// Content has been read, and so much may come ahead of its reader now, where so much might before:
    /// what is to be paid for.
    pub(super) fn owed(&self, content: u64, (before, now): (u64, u64)) -> u64 {
        let mut counts = self.counts();
        counts.content += content;
        counts.ahead = counts.ahead + now - before;
        counts.pay()
    }

    /// Nothing comes ahead of a reader any more, who had this: what is to be paid for.
    pub(super) fn leave(&self, ahead: u64) -> u64 {
        let mut counts = self.counts();
        counts.readers -= 1;
        counts.ahead -= ahead;
        counts.pay()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ledger::Wire;

    /// Of it, so much was read and so much is headers; the rest waits to be read.
    fn carried(read: u64, headers: u64, waits: u64) -> Carried {
        Carried {
            connection: 0,
            wire: Wire { read, headers, ..Wire::default() },
            flying: 0,
            crossed: read + headers + waits,
            round_trip: Duration::from_millis(40),
        }
    }

    #[test]
    fn what_may_come_ahead_is_paid_first_and_all_that_crossed_once() {
        let toll = Toll::default();
        toll.enter();
        assert_eq!(toll.owed(0, (0, 500)), 500);
        toll.carried(&carried(0, 20, 500));
        assert_eq!(toll.owed(100, (500, 500)), 120, "what is read makes room for as much");
        toll.carried(&carried(100, 5, 0));
        assert_eq!(toll.owed(900, (500, 0)), 405, "at the end nothing is left to come");
        toll.carried(&Carried { crossed: 400, ..carried(900, 0, 0) });
        assert_eq!(toll.leave(0), 0);
        let counts = toll.counts();
        assert_eq!(counts.paid, counts.crossed);
        drop(counts);
        assert_eq!(toll.round_trip(), Duration::from_millis(40));
    }

    #[test]
    fn who_breaks_off_has_what_was_paid_ahead_back_but_for_what_crossed() {
        let toll = Toll::default();
        toll.enter();
        toll.enter();
        assert_eq!(toll.owed(0, (0, 500)), 500);
        toll.carried(&carried(200, 0, 0));
        assert_eq!(toll.leave(500), 0);
        assert_eq!(toll.owed(0, (0, 500)), 200);
    }

    #[test]
    fn nobody_pays_for_what_came_while_nobody_read() {
        let toll = Toll::default();
        toll.carried(&carried(3000, 100, 0));
        toll.enter();
        assert_eq!(toll.owed(0, (0, 0)), 0);
        assert_eq!(toll.owed(3500, (0, 0)), 500);
    }
}
