//! Holding bytes back so that they keep to a rate that may change at any time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::core::bitrate::Rate;
use crate::core::pace::{Pace, Taken};

/// Who waits looks this often whether the rate has changed.
const LOOK: Duration = Duration::from_millis(50);

/// Bytes that pass, and the rate that they keep to, if any. A rate of 0 lets nothing pass.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    pace: Mutex<Option<Pace>>,
    /// Counts the times that a limit was set where there was none: what was taken before means
    /// nothing to it.
    limits: AtomicU64,
    closed: AtomicBool,
    passed: AtomicU64,
    /// Since the start.
    all: AtomicU64,
    waited: AtomicBool,
}

/// Bytes that passed, to be waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owed {
    limit: u64,
    taken: Taken,
}

impl Throttle {
    /// One that keeps to this rate.
    pub(super) fn new(rate: Option<Rate>) -> Self {
        let throttle = Self::default();
        throttle.set(rate);
        throttle
    }

    fn pace(&self) -> MutexGuard<'_, Option<Pace>> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the rate, for those who wait already too.
    pub(super) fn set(&self, rate: Option<Rate>) {
        let (mut pace, now) = (self.pace(), Instant::now());
        self.closed.store(rate == Some(Rate(0)), Ordering::Relaxed);
        match (&mut *pace, rate) {
            (Some(pace), Some(rate)) => pace.set_rate(now, rate),
            (pace, rate) => {
                self.limits.fetch_add(1, Ordering::Relaxed);
                *pace = rate.map(|rate| Pace::new(now, rate));
            }
        }
    }

    /// Whether nothing may pass.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Waits a little if nothing may pass; false once something may.
    pub(super) async fn is_shut(&self) -> bool {
        if self.is_closed() {
            self.waited.store(true, Ordering::Relaxed);
            tokio::time::sleep(LOOK).await;
        }
        self.is_closed()
    }

    /// The rate to keep, in bytes per second.
    pub(super) fn rate(&self) -> Option<f64> {
        self.pace().as_ref().map(Pace::rate)
    }

    /// Whether there is a rate to keep.
    pub(super) fn is_limited(&self) -> bool {
        self.pace().is_some()
    }

    /// Accounts for bytes that came; they are to be waited for with [`Throttle::holds_back`].
    pub(super) fn take(&self, bytes: u64) -> Option<Owed> {
        self.passed.fetch_add(bytes, Ordering::Relaxed);
        self.all.fetch_add(bytes, Ordering::Relaxed);
        let mut pace = self.pace();
        let limit = self.limits.load(Ordering::Relaxed);
        pace.as_mut().map(|pace| Owed { limit, taken: pace.take(Instant::now(), bytes) })
    }

    /// Accounts for bytes that are about to be asked for; what was taken before them is to be waited for first.
    pub(super) fn take_next(&self, bytes: u64) -> Option<Owed> {
        self.take(bytes).map(|Owed { limit, taken }| Owed { limit, taken: taken.before(bytes) })
    }

    /// Waits a little if more may not come yet; false once it may.
    pub(super) async fn holds_back(&self, owed: Option<Owed>) -> bool {
        let wait = match (&mut *self.pace(), owed) {
            (Some(pace), Some(owed)) if owed.limit == self.limits.load(Ordering::Relaxed) => {
                pace.wait(Instant::now(), owed.taken)
            }
            _ => return false,
        };
        if wait.is_zero() {
            return false;
        }
        self.waited.store(true, Ordering::Relaxed);
        tokio::time::sleep(wait.min(LOOK)).await;
        true
    }

    /// Bytes that have passed since the start.
    pub(super) fn passed(&self) -> u64 {
        self.all.load(Ordering::Relaxed)
    }

    /// Lets bytes pass, and waits until more may.
    pub(super) async fn pass(&self, bytes: u64) {
        let owed = self.take(bytes);
        while self.holds_back(owed).await {}
    }

    /// Bytes that have passed since this was last asked, and whether any had to wait.
    pub(super) fn use_since(&self) -> (u64, bool) {
        (self.passed.swap(0, Ordering::Relaxed), self.waited.swap(false, Ordering::Relaxed))
    }
}
