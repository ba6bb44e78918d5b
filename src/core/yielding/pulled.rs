//! How much comes, and the best that came.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Rates are measured over so long.
const OVER: Duration = Duration::from_millis(400);
/// Of so many, the best is what comes lately: between two requests there are gaps.
const LATELY: usize = 4;
/// The best fades a little each time, so that a link that is slower for good is believed: to half in
/// half an hour.
const FADES: f64 = 0.99985;

/// Bytes of one node's background.
#[derive(Debug)]
pub(super) struct Pulled {
    since: Instant,
    at: u64,
    told: u64,
    lately: VecDeque<f64>,
    best: f64,
}

impl Pulled {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, at: 0, told: 0, lately: VecDeque::new(), best: 0.0 }
    }

    /// It begins again, when `sum` bytes have come in all.
    pub(super) fn resume(&mut self, now: Instant, sum: u64) {
        (self.since, self.at, self.told) = (now, sum, sum);
    }

    /// So many have come in all; what came since this was last called.
    pub(super) fn came(&mut self, now: Instant, sum: u64) -> u64 {
        let time = now.saturating_duration_since(self.since);
        if time >= OVER {
            let rate = sum.saturating_sub(self.at) as f64 / time.as_secs_f64();
            self.lately.push_back(rate);
            if self.lately.len() > LATELY {
                self.lately.pop_front();
            }
            // A burst out of some buffer is not what the link can do.
            let steady = self.lately.iter().rev().take(2).copied().fold(f64::INFINITY, f64::min);
            self.best = steady.max(self.best * FADES);
            (self.since, self.at) = (now, sum);
        }
        let came = sum.saturating_sub(self.told);
        self.told = sum;
        came
    }

    /// The best of the last one or two seconds, in bytes per second.
    pub(super) fn lately(&self) -> f64 {
        self.lately.iter().copied().fold(0.0, f64::max)
    }

    /// The best of the last hour or so, in bytes per second.
    pub(super) fn best(&self) -> f64 {
        self.best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_bursts_are_not_the_links_rate() {
        let (mut now, mut sum) = (Instant::now(), 0);
        let mut pulled = Pulled::new(now);
        for piece in [1000, 1000, 0, 1000, 9000, 1000, 0, 0] {
            now += OVER;
            sum += piece;
            assert_eq!(pulled.came(now, sum), piece);
        }
        assert!((2400.0..2600.0).contains(&pulled.best()), "{}", pulled.best());
        assert!(pulled.lately() > 20_000.0);
        pulled.resume(now + Duration::from_secs(3600), sum);
        assert_eq!(pulled.came(now + Duration::from_secs(3601), sum), 0);
    }
}
