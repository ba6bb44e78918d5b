//! Keeping to a rate: a token bucket that says how long to wait.

use std::time::{Duration, Instant};

use super::bitrate::Rate;

/// How far ahead of the rate a burst may run.
const BURST: Duration = Duration::from_millis(50);

/// A limit on bytes per second. Bytes are taken after they were read, so that no read is split;
/// the debt is waited off before the next one.
#[derive(Debug)]
pub struct Pace {
    rate: Rate,
    /// When the bytes taken so far would all have passed at the rate.
    even: Instant,
}

impl Pace {
    /// A limit that has seen nothing yet.
    pub fn new(now: Instant, rate: Rate) -> Self {
        Self { rate, even: now }
    }

    /// Accounts for bytes; returns how long to wait before reading more.
    pub fn take(&mut self, now: Instant, bytes: u64) -> Duration {
        let cost = Duration::from_secs_f64(bytes as f64 / self.rate.0 as f64);
        self.even = self.even.max(now.checked_sub(BURST).unwrap_or(now)) + cost;
        self.even.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_rate_whatever_the_pieces() {
        let start = Instant::now();
        let mut now = start;
        let mut pace = Pace::new(now, Rate(1_000_000));
        let mut taken = 0;
        for piece in [1, 70_000, 1000, 300_000, 64_000].into_iter().cycle().take(500) {
            taken += piece;
            now += pace.take(now, piece);
        }
        let rate = taken as f64 / (now - start).as_secs_f64();
        assert!((980_000.0..1_020_000.0).contains(&rate), "{rate}");
    }

    #[test]
    fn an_idle_hour_saves_up_no_burst() {
        let now = Instant::now();
        let mut pace = Pace::new(now, Rate(1000));
        let later = now + Duration::from_secs(3600);
        assert_eq!(pace.take(later, 1050), Duration::from_secs(1));
    }
}
