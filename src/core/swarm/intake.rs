//! How much this node takes in from all its sources together, and so how much it may ask for at a time.
//!
//! A machine with a thin link of its own (Wi-Fi at the far end of the building) is slow with every source.
//! Were it to ask them all for as much as each could send, everything would come at once and late, and look
//! as if no source made progress. It asks for what its own link brings in a moment, and no more.

use std::time::{Duration, Instant};

/// So much time's worth is asked for.
const AHEAD: Duration = Duration::from_millis(250);
/// While nothing has been measured, so many bytes; and never fewer than the second.
const AT_FIRST: u64 = 1 << 20;
const LEAST: u64 = 256 << 10;
/// The rate is taken over so long, or as soon as all that may be asked for has come.
const WINDOW: Duration = Duration::from_millis(250);
const SHORTEST: Duration = Duration::from_millis(5);
/// From window to window it falls by no more than this: sources have pauses of their own.
const FALLS: f64 = 0.75;

/// The bytes that come from peers.
#[derive(Debug, Default)]
pub(super) struct Intake {
    since: Option<Instant>,
    bytes: u64,
    /// Bytes per second.
    rate: Option<f64>,
}

impl Intake {
    /// How many bytes may be asked for and not there yet, over all sources.
    pub(super) fn room(&self) -> u64 {
        self.rate.map_or(AT_FIRST, |rate| LEAST.max((rate * AHEAD.as_secs_f64()) as u64))
    }

    /// How long so many bytes take to come.
    pub(super) fn takes(&self, bytes: u64) -> Duration {
        let takes = self.rate.map_or(0.0, |rate| bytes as f64 / rate.max(1.0));
        Duration::from_secs_f64(takes.min(3600.0))
    }

    /// Something is asked for, and nothing was before: time that passed without is no measure.
    pub(super) fn begins(&mut self, now: Instant) {
        (self.since, self.bytes) = (Some(now), 0);
    }

    /// Bytes that were asked for have come.
    pub(super) fn came(&mut self, now: Instant, bytes: u64) {
        self.bytes += bytes;
        let time = now.saturating_duration_since(*self.since.get_or_insert(now));
        if time < WINDOW && (self.bytes < self.room() || time < SHORTEST) {
            return;
        }
        let rate = self.bytes as f64 / time.as_secs_f64();
        self.rate = Some(self.rate.map_or(rate, |before| rate.max(before * FALLS)));
        self.begins(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What may be asked for after a second at so many bytes per second.
    fn room_at(rate: u64) -> u64 {
        let start = Instant::now();
        let mut intake = Intake::default();
        intake.begins(start);
        (1..=1000).for_each(|ms| intake.came(start + Duration::from_millis(ms), rate / 1000));
        intake.room()
    }

    #[test]
    fn a_thin_link_asks_for_little_and_a_wide_one_is_not_held_up() {
        assert_eq!(room_at(600_000), LEAST);
        assert!((2_400_000..2_600_000).contains(&room_at(10_000_000)), "{}", room_at(10_000_000));
        let start = Instant::now();
        let mut intake = Intake::default();
        intake.begins(start);
        (1..=12).for_each(|ms| intake.came(start + Duration::from_millis(ms), 1_000_000));
        assert!(intake.room() > 200_000_000, "within a few milliseconds: {}", intake.room());
    }
}
