//! Which upstreams have just not been reached: what is held of them is used at once, instead of letting
//! each client find out for itself.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// After so long it is tried again.
const LASTS: Duration = Duration::from_secs(15);

/// By the upstreams' names, when each was last found to be out of reach.
#[derive(Debug, Default)]
pub(super) struct Outages(Mutex<BTreeMap<String, Instant>>);

impl Outages {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was out of reach a moment ago.
    pub(super) fn is_out(&self, upstream: &str, now: Instant) -> bool {
        self.all().get(upstream).is_some_and(|at| now.saturating_duration_since(*at) < LASTS)
    }

    /// It was asked.
    pub(super) fn note(&self, upstream: &str, reached: bool, now: Instant) {
        if reached {
            self.all().remove(upstream);
        } else {
            self.all().insert(upstream.to_owned(), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_remembered_for_a_while() {
        let (outages, now) = (Outages::default(), Instant::now());
        outages.note("a", false, now);
        assert!(outages.is_out("a", now) && !outages.is_out("b", now));
        assert!(!outages.is_out("a", now + LASTS));
        outages.note("a", true, now);
        assert!(!outages.is_out("a", now));
    }
}
