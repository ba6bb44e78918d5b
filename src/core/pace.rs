//! Keeping to a rate: a clock of bytes that says how long to wait.

use std::time::{Duration, Instant};

use super::bitrate::Rate;

/// How far ahead of the rate a burst may run: a process that got no processor for so long makes up for
/// it, and of 10 s this is 1.5 %.
const BURST: Duration = Duration::from_millis(150);
/// A longer time without bytes is no lack of processor: nothing was wanted, and nothing is saved up.
const PAUSE: Duration = Duration::from_secs(1);

/// A limit on bytes per second. Bytes are taken after they were read, so that no read is split;
/// who took them waits until the rate has let them pass before it reads more.
#[derive(Debug)]
pub struct Pace {
    rate: f64,
    at: Instant,
    /// Bytes that the rate has let pass by `at`. Idle time counts until bytes are taken again: then no more of
    /// it is left than what they may make up for.
    passed: f64,
    taken: f64,
}

/// Bytes taken from a [`Pace`], to be waited for.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Taken(f64);

impl Taken {
    /// What was taken before these bytes of it.
    pub fn before(self, bytes: u64) -> Self {
        Self(self.0 - bytes as f64)
    }
}

impl Pace {
    /// A limit that has seen nothing yet.
    pub fn new(now: Instant, rate: Rate) -> Self {
        Self { rate: rate.0.max(1) as f64, at: now, passed: 0.0, taken: 0.0 }
    }

    /// Bytes per second.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Changes the rate, for what was taken and not waited for too.
    pub fn set_rate(&mut self, now: Instant, rate: Rate) {
        self.advance(now);
        self.rate = rate.0.max(1) as f64;
    }

    /// Accounts for bytes.
    pub fn take(&mut self, now: Instant, bytes: u64) -> Taken {
        self.advance(now);
        let idle = (self.passed - self.taken) / self.rate;
        if idle > 0.0 {
            let saved = if idle > PAUSE.as_secs_f64() { 0.0 } else { idle.min(BURST.as_secs_f64()) };
            self.passed = self.taken + saved * self.rate;
        }
        self.taken += bytes as f64;
        Taken(self.taken)
    }

    /// How long to wait, at the present rate, before reading more.
    pub fn wait(&mut self, now: Instant, taken: Taken) -> Duration {
        self.advance(now);
        Duration::from_secs_f64(((taken.0 - self.passed) / self.rate).clamp(0.0, 3600.0))
    }

    fn advance(&mut self, now: Instant) {
        let time = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.passed += time * self.rate;
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
        let mut total = 0;
        for piece in [1, 70_000, 1000, 300_000, 64_000].into_iter().cycle().take(500) {
            total += piece;
            let taken = pace.take(now, piece);
            now += pace.wait(now, taken);
        }
        let rate = total as f64 / (now - start).as_secs_f64();
        assert!((980_000.0..1_020_000.0).contains(&rate), "{rate}");
    }

    #[test]
    fn an_idle_hour_saves_up_no_burst() {
        let now = Instant::now();
        let mut pace = Pace::new(now, Rate(1000));
        let later = now + Duration::from_secs(3600);
        let taken = pace.take(later, 1000);
        assert_eq!(pace.wait(later, taken), Duration::from_secs(1));
    }

    #[test]
    fn a_short_delay_is_made_up_for_and_a_longer_one_in_part() {
        for (late, saved) in [(100, 100), (400, 150), (1500, 0)] {
            let now = Instant::now();
            let mut pace = Pace::new(now, Rate(1000));
            let taken = pace.take(now, 1000);
            let late = now + pace.wait(now, taken) + Duration::from_millis(late);
            let taken = pace.take(late, 1000);
            assert_eq!(pace.wait(late, taken), Duration::from_millis(1000 - saved));
        }
    }

    #[test]
    fn another_rate_holds_for_those_who_wait_already() {
        let now = Instant::now();
        let mut pace = Pace::new(now, Rate(1000));
        let taken = pace.take(now, 10_000);
        let half = now + Duration::from_secs(5);
        pace.set_rate(half, Rate(5000));
        assert_eq!(pace.wait(half, taken), Duration::from_secs(1));
    }
}
