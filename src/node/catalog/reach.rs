//! What this node knows of the way to the origin: when the catalog was last known to be the newest, and
//! since when checks fail.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::core::id::NodeId;
use crate::origin::OriginError;

/// What a member is told whose age is not known: longer than any machine runs.
pub(super) const UNKNOWN_AGE: Duration = Duration::from_millis(u64::MAX);

/// Checks that fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    /// Since the first of them in a row.
    pub since: Timestamp,
    /// Why the last one did.
    pub why: String,
    /// The origin was not reached; else it was, and what it said was refused.
    pub out_of_reach: bool,
}

#[derive(Debug, Default)]
struct State {
    checked: Option<Instant>,
    by: Option<NodeId>,
    checks: Option<Failing>,
    own_way: Option<Failing>,
}

/// The way to the origin.
#[derive(Debug, Default)]
pub(super) struct Reach(Mutex<State>);

fn note(failing: &mut Option<Failing>, result: Result<(), &OriginError>) {
    *failing = result.err().map(|error| {
        let since = failing.as_ref().map_or_else(Timestamp::now, |failing| failing.since);
        Failing { since, why: error.to_string(), out_of_reach: error.is_transient() }
    });
}

impl Reach {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The catalog that is here was the newest so long ago, as the origin or a member says. What is
    /// known to be later stays.
    pub(super) fn note_age(&self, age: Duration, by: Option<NodeId>) {
        let Some(at) = Instant::now().checked_sub(age).filter(|_| age < UNKNOWN_AGE) else { return };
        let mut state = self.state();
        if state.checked.is_none_or(|known| known < at) {
            (state.checked, state.by) = (Some(at), by);
        }
    }

    /// How long ago that was.
    pub(super) fn age(&self) -> Option<Duration> {
        self.state().checked.map(|at| at.elapsed())
    }

    /// The member that said so last; none if this node has asked the origin itself.
    pub(super) fn by(&self) -> Option<NodeId> {
        self.state().by
    }

    /// A check has ended, whoever was asked.
    pub(super) fn note_check(&self, result: Result<(), &OriginError>) {
        note(&mut self.state().checks, result);
    }

    /// This node has asked the origin itself.
    pub(super) fn note_own(&self, result: Result<(), &OriginError>) {
        note(&mut self.state().own_way, result);
    }

    /// Nobody could bring the catalog up to date.
    pub(super) fn failing(&self) -> Option<Failing> {
        self.state().checks.clone()
    }

    /// This node itself cannot; others perhaps can.
    pub(super) fn own_failing(&self) -> Option<Failing> {
        self.state().own_way.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_are_one_since_the_first() {
        let reach = Reach::default();
        reach.note_check(Err(&OriginError::Silent(6)));
        let first = reach.failing().expect("failing");
        assert!(first.out_of_reach);
        reach.note_check(Err(&OriginError::Invalid("expired".into())));
        let second = reach.failing().expect("failing");
        assert_eq!((second.since, second.out_of_reach, &*second.why), (first.since, false, "expired"));
        assert_eq!(reach.own_failing(), None);
        reach.note_check(Ok(()));
        assert_eq!(reach.failing(), None);
    }

    #[test]
    fn what_is_known_to_be_later_stays() {
        let (reach, member) = (Reach::default(), NodeId::from_bytes([1; 32]));
        reach.note_age(UNKNOWN_AGE, Some(member));
        assert_eq!((reach.age(), reach.by()), (None, None));
        reach.note_age(Duration::ZERO, None);
        reach.note_age(Duration::from_secs(1), Some(member));
        assert!(reach.age().expect("known") < Duration::from_secs(1) && reach.by().is_none());
    }
}
