//! Going from lead to lead: how fast, and with how much patience.

use std::time::{Duration, Instant};

/// So many nodes in a row are asked at once; then a pause comes before each, and doubles.
const FREE_JOINS: u32 = 4;
/// After so many in a row nobody will lead it.
const VAIN_JOINS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(300);
/// So many doubts in a row make no more difference.
const MOST_DOUBTS: u32 = 4;
/// With the first doubt a lead may be silent for so much longer, and with each more for twice as long.
const GRACE: Duration = Duration::from_millis(1000);

/// How often in a row it was sent elsewhere. While nodes do not yet see the same site they may send
/// each other in circles; going ever slower gives them time to see it.
#[derive(Debug, Default)]
pub(super) struct Haste {
    joins: u32,
    last: Option<Instant>,
}

impl Haste {
    /// It has been sent around for so long that there is no sense in it.
    pub(super) fn is_in_vain(&self) -> bool {
        self.joins > VAIN_JOINS
    }

    /// How long to wait before the next node is asked to lead.
    pub(super) fn pause(&mut self, now: Instant) -> Duration {
        let again = self.last.is_some_and(|last| now < last + 2 * LONGEST_PAUSE);
        self.joins = if again { self.joins + 1 } else { 0 };
        self.last = Some(now);
        match self.joins.checked_sub(FREE_JOINS) {
            None => Duration::ZERO,
            Some(more) => (PAUSE * 2u32.pow(more.min(5))).min(LONGEST_PAUSE),
        }
    }
}

/// How often in a row this node left a lead that said nothing. One may have died. Where one after the
/// other is silent it is the site that has too much to do, and who goes from lead to lead gives it more:
/// each is to take over, and asks all. So each time this node waits twice as long.
#[derive(Debug, Default)]
pub(super) struct Doubts(u32);

impl Doubts {
    pub(super) fn another(&mut self) {
        self.0 = (self.0 + 1).min(MOST_DOUBTS);
    }

    /// How much longer than usual a lead may be silent.
    pub(super) fn grace(&self) -> Duration {
        GRACE * (2u32.pow(self.0) - 1)
    }

    /// How much longer than usual members may take to answer who takes over. Where but one lead was silent
    /// they need no longer, and it will not answer.
    pub(super) fn of_members(&self) -> Duration {
        Self(self.0.saturating_sub(1)).grace()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_silent_lead_makes_for_more_patience_with_the_next_up_to_a_bound() {
        let mut doubts = Doubts::default();
        assert_eq!((doubts.grace(), doubts.of_members()), (Duration::ZERO, Duration::ZERO));
        let seconds = [(1, 0), (3, 1), (7, 3), (15, 7), (15, 7)];
        for (of_lead, of_members) in seconds {
            doubts.another();
            assert_eq!((doubts.grace().as_secs(), doubts.of_members().as_secs()), (of_lead, of_members));
        }
    }

    #[test]
    fn who_is_sent_around_goes_ever_slower_until_it_gives_up() {
        let (mut now, mut haste) = (Instant::now(), Haste::default());
        let mut longest = Duration::ZERO;
        for n in 0..=VAIN_JOINS + 1 {
            assert!(!haste.is_in_vain(), "after {n}");
            let pause = haste.pause(now);
            assert!(pause >= longest && (pause.is_zero() == (n < FREE_JOINS)), "{pause:?} before {n}");
            longest = pause;
            now += pause;
        }
        assert!(longest == LONGEST_PAUSE && haste.is_in_vain());
        assert!(haste.pause(now + Duration::from_secs(1)).is_zero() && !haste.is_in_vain(), "that is over");
    }
}
