//! Who has just not been reached, an upstream or a home: what is held of an upstream is used at once, and
//! another home is asked, instead of letting each client find out for itself.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// After so long it is tried again.
const LASTS: Duration = Duration::from_secs(15);

/// When each was last found to be out of reach.
#[derive(Debug)]
pub(super) struct Outages<K>(Mutex<BTreeMap<K, Instant>>);

impl<K> Default for Outages<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord> Outages<K> {
    fn all(&self) -> MutexGuard<'_, BTreeMap<K, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was out of reach a moment ago.
    pub(super) fn is_out<Q: Ord + ?Sized>(&self, who: &Q, now: Instant) -> bool
    where
        K: Borrow<Q>,
    {
        self.all().get(who).is_some_and(|at| now.saturating_duration_since(*at) < LASTS)
    }

    /// It was asked.
    pub(super) fn note<Q: Ord + ToOwned<Owned = K> + ?Sized>(&self, who: &Q, reached: bool, now: Instant)
    where
        K: Borrow<Q>,
    {
        let mut all = self.all();
        if reached {
            all.remove(who);
        } else {
            // Members come and go.
            all.retain(|_, at| now.saturating_duration_since(*at) < LASTS);
            all.insert(who.to_owned(), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_remembered_for_a_while() {
        let (outages, now) = (Outages::<String>::default(), Instant::now());
        outages.note("a", false, now);
        assert!(outages.is_out("a", now) && !outages.is_out("b", now));
        assert!(!outages.is_out("a", now + LASTS));
        outages.note("a", true, now);
        assert!(!outages.is_out("a", now));
    }
}
