//! How fast a lead's WAN is, and whether it has slowed to a crawl.

use std::time::{Duration, Instant};

/// Over so long a rate is measured.
const WINDOW: Duration = Duration::from_secs(2);
/// In so many windows more than not it has to be slow.
const WINDOWS: u32 = 3;
/// Slow is less than this part of the best that was seen: other flights that begin, and take their
/// part of the link, do not count as a crawl.
const CRAWL: f64 = 0.15;
/// Where no WAN of the site has been measured yet, slow is less than this, in bytes per second: it may be
/// this node's link alone, and another one's try settles that once for all of the site's flights.
const UNTRIED: f64 = 250_000.0;
/// The best fades from window to window, so that a link that is slower for good is believed.
const FADES: f64 = 0.99;

/// The rate of the WAN bytes of one lease.
#[derive(Debug)]
pub(super) struct Speed {
    since: Instant,
    bytes: u64,
    held_back: bool,
    best: f64,
    /// Nothing was known of this site's WANs when it began.
    untried: bool,
    slow: u32,
}

impl Speed {
    /// `best`: what this WAN is known to give, in bytes per second; 0 if nothing is known.
    pub(super) fn new(now: Instant, best: u64) -> Self {
        Self { since: now, bytes: 0, held_back: false, best: best as f64, untried: best == 0, slow: 0 }
    }

    /// The best that was seen, in bytes per second.
    pub(super) fn best(&self) -> u64 {
        self.best as u64
    }

    /// Bytes came; `held_back` says that the site's own limit made them wait.
    pub(super) fn came(&mut self, now: Instant, bytes: u64, held_back: bool) {
        self.bytes += bytes;
        self.held_back |= held_back;
        let time = now.saturating_duration_since(self.since);
        if time < WINDOW {
            return;
        }
        let rate = self.bytes as f64 / time.as_secs_f64();
        let least = if self.untried { UNTRIED } else { 0.0 }.max(self.best * CRAWL);
        let slow = !self.held_back && rate < least;
        // A crawl has its better moments.
        self.slow = if slow { (self.slow + 1).min(WINDOWS) } else { self.slow.saturating_sub(1) };
        self.best = rate.max(self.best * FADES);
        (self.since, self.bytes, self.held_back) = (now, 0, false);
    }

    /// It was much faster before, and not just for a moment.
    pub(super) fn crawls(&self, now: Instant) -> bool {
        // A pause is no crawl: nothing was asked for, or nothing comes at all.
        self.slow >= WINDOWS && now.saturating_duration_since(self.since) < WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pieces: &[(u64, u64)], best: u64, held_back: bool) -> bool {
        let start = Instant::now();
        let (mut now, mut speed) = (start, Speed::new(start, best));
        for &(seconds, rate) in pieces {
            for _ in 0..seconds * 5 {
                now += Duration::from_millis(200);
                speed.came(now, rate / 5, held_back);
            }
        }
        speed.crawls(now)
    }

    #[test]
    fn a_crawl_is_seen_and_a_busy_link_is_none() {
        assert!(after(&[(10, 2_000_000), (10, 200_000)], 0, false));
        assert!(after(&[(10, 200_000)], 2_000_000, false), "of another's WAN");
        assert!(!after(&[(10, 2_000_000), (4, 200_000)], 0, false), "not yet");
        assert!(!after(&[(10, 2_000_000), (20, 500_000)], 0, false), "three others came");
        assert!(!after(&[(60, 20_000)], 40_000, false), "no WAN of the site is much better");
        assert!(!after(&[(10, 2_000_000), (10, 200_000)], 0, true), "by our own limit");
    }

    #[test]
    fn where_nothing_is_known_a_slow_link_is_tried_elsewhere() {
        assert!(after(&[(10, 100_000)], 0, false));
        assert!(!after(&[(4, 100_000)], 0, false), "not yet");
        assert!(!after(&[(10, 300_000)], 0, false), "a branch may have no more");
        assert!(!after(&[(10, 100_000)], 0, true), "by our own limit");
    }
}
