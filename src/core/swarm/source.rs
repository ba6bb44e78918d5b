//! One node that holds chunks of the blob: how fast it is, and whether it fails.

use std::time::{Duration, Instant};

use crate::core::chunkset::ChunkSet;

/// A source that failed rests for this long, doubled for each failure in a row.
const REST: Duration = Duration::from_millis(100);
const LONGEST_REST: Duration = Duration::from_secs(10);
/// A source whose rate is not known yet is taken to be as fast as this, in bytes per second: a
/// first batch then is small, and soon tells.
const FIRST_GUESS: f64 = 10e6;
/// How much of the rate is the newest batch's.
const NEWEST: f64 = 0.4;

/// A node that holds chunks of the blob.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) held: ChunkSet,
    /// It still wants chunks itself.
    pub(super) follower: bool,
    /// Batches under way to it, and their bytes.
    pub(super) batches: usize,
    pub(super) owes: u64,
    rate: Option<f64>,
    failures: u32,
    rests_until: Option<Instant>,
    /// It rests because it was busy.
    busy: bool,
}

impl Source {
    /// Bytes per second of one batch, as last seen.
    pub(super) fn rate(&self) -> f64 {
        self.rate.unwrap_or(FIRST_GUESS).max(1.0)
    }

    /// How long what is asked of it already takes.
    pub(super) fn backlog(&self) -> Duration {
        Duration::from_secs_f64((self.owes as f64 / self.rate()).min(3600.0))
    }

    /// Until when it is left alone after a failure.
    pub(super) fn rests(&self, now: Instant) -> Option<Instant> {
        self.rests_until.filter(|&until| until > now)
    }

    pub(super) fn measured(&mut self, bytes: u64, took: Duration) {
        let rate = bytes as f64 / took.as_secs_f64().max(1e-4);
        self.rate = Some(self.rate.map_or(rate, |before| before + NEWEST * (rate - before)));
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    pub(super) fn was_busy(&mut self, now: Instant) {
        self.busy = true;
        self.rests_until = Some(now + REST / 2);
    }

    /// Whether it rests because it was busy.
    pub(super) fn is_busy(&self, now: Instant) -> bool {
        self.busy && self.rests(now).is_some()
    }

    pub(super) fn failed(&mut self, now: Instant) {
        self.busy = false;
        self.failures = (self.failures + 1).min(10);
        self.rests_until = Some(now + (REST * 2u32.pow(self.failures)).min(LONGEST_REST));
    }
}
