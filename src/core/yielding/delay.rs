//! How long packets wait in the queue before the site's link, as the round trips of probes tell.
//!
//! A round trip is the way there and back, the server's time, and the wait in the queue. All but the
//! last change rarely, so the shortest round trip of the last hour stands for them (the base delay of
//! RFC 6817, whose ten minutes are too few here: another's transfer may fill the queue for longer, and
//! its queue would become the base). Jitter only ever adds, so the shortest of the last few is what counts.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The base is the shortest of so many pieces of so much time, time without probes not counted.
const PIECES: usize = 12;
const PIECE: Duration = Duration::from_secs(300);
/// Two probes further apart than this have had a pause between them.
const PAUSE: Duration = Duration::from_secs(2);
/// The present is the shortest of the last so many, none older than this.
const RECENT: usize = 3;
const RECENTLY: Duration = Duration::from_millis(900);
/// One of them alone may be a machine that stood still, so the last but one counts for longer.
const PAIR: usize = 2;
const PAIRED: Duration = Duration::from_millis(2500);
/// A queue that others fill goes up and down. What stays within this for so long is another route.
const FLAT: Duration = Duration::from_millis(6);
const FLAT_FOR: Duration = Duration::from_secs(30);

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Delays {
    /// The shortest of each piece of time, the newest last.
    pieces: VecDeque<Duration>,
    /// How much of the newest piece is over.
    of_piece: Duration,
    recent: VecDeque<(Instant, Duration)>,
    last: Option<Instant>,
    flat: Option<Flat>,
}

#[derive(Debug, Clone, Copy)]
struct Flat {
    since: Instant,
    low: Duration,
    high: Duration,
}

impl Delays {
    /// A probe was answered after `round_trip`. `resting`: this node adds next to nothing to the queue.
    pub(super) fn add(&mut self, now: Instant, round_trip: Duration, resting: bool) {
        let pause = self.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.last = Some(now);
        self.of_piece += pause.min(PAUSE);
        if self.pieces.is_empty() || self.of_piece >= PIECE {
            self.of_piece = Duration::ZERO;
            self.pieces.push_back(round_trip);
            if self.pieces.len() > PIECES {
                self.pieces.pop_front();
            }
        }
        if let Some(shortest) = self.pieces.back_mut() {
            *shortest = round_trip.min(*shortest);
        }
        self.recent.push_back((now, round_trip));
        while self.recent.front().is_some_and(|(at, _)| self.is_past(now.saturating_duration_since(*at))) {
            self.recent.pop_front();
        }
        self.look_for_another_route(now, resting);
    }

    /// Whether the oldest of the recent ones, of this age, says nothing of the present any more.
    fn is_past(&self, age: Duration) -> bool {
        let within = if self.recent.len() > PAIR { RECENTLY } else { PAIRED };
        self.recent.len() > RECENT || age > within
    }

    /// What was measured just now says nothing of the present any more.
    pub(super) fn forget_present(&mut self) {
        self.recent.clear();
    }

    /// The round trip with an empty queue.
    pub(super) fn base(&self) -> Option<Duration> {
        self.pieces.iter().min().copied()
    }

    /// How many samples the present rests on.
    pub(super) fn samples(&self) -> usize {
        self.recent.len()
    }

    /// Whether more than one sample says how long the wait is at present.
    pub(super) fn are_sure(&self) -> bool {
        self.recent.len() >= PAIR
    }

    /// The wait in the queue at present.
    pub(super) fn queueing(&self) -> Option<Duration> {
        let present = self.recent.iter().map(|(_, round_trip)| *round_trip).min()?;
        Some(present.saturating_sub(self.base()?))
    }

    fn look_for_another_route(&mut self, now: Instant, resting: bool) {
        let present = self.recent.iter().map(|(_, round_trip)| *round_trip).min();
        let (Some(present), true) = (present, resting) else {
            self.flat = None;
            return;
        };
        let new = Flat { since: now, low: present, high: present };
        let flat = self.flat.get_or_insert(new);
        (flat.low, flat.high) = (flat.low.min(present), flat.high.max(present));
        if flat.high - flat.low > FLAT {
            *flat = new;
        } else if now.saturating_duration_since(flat.since) >= FLAT_FOR {
            self.pieces = [flat.low].into();
            self.of_piece = Duration::ZERO;
            self.flat = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(200);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Feeds round trips in milliseconds, one each 200 ms.
    fn feed(delays: &mut Delays, now: &mut Instant, resting: bool, round_trips: impl Iterator<Item = u64>) {
        for round_trip in round_trips {
            *now += EVERY;
            delays.add(*now, ms(round_trip), resting);
        }
    }

    #[test]
    fn the_shortest_is_the_base_and_jitter_is_no_queue() {
        let (mut delays, mut now) = (Delays::default(), Instant::now());
        assert_eq!(delays.queueing(), None);
        feed(&mut delays, &mut now, false, [40, 95, 42, 61, 120, 44].into_iter());
        assert_eq!((delays.base(), delays.queueing()), (Some(ms(40)), Some(ms(4))));
        feed(&mut delays, &mut now, false, [90; 3].into_iter());
        assert_eq!(delays.queueing(), Some(ms(50)));
        feed(&mut delays, &mut now, false, [41].into_iter());
        now += ms(1400);
        delays.add(now, ms(1400), false);
        assert_eq!(delays.queueing(), Some(ms(1)), "one that is late is no queue yet");
        feed(&mut delays, &mut now, false, [90].into_iter());
        assert_eq!(delays.queueing(), Some(ms(50)), "two in a row are");
        now += ms(3000);
        delays.add(now, ms(200), false);
        assert_eq!(delays.queueing(), Some(ms(160)), "what is old says nothing of the present");
    }

    #[test]
    fn another_transfer_of_half_an_hour_is_not_taken_for_the_base() {
        let (mut delays, mut now) = (Delays::default(), Instant::now());
        feed(&mut delays, &mut now, true, [40].into_iter());
        feed(&mut delays, &mut now, true, (0..9000).map(|n| 100 + n % 40));
        assert_eq!(delays.base(), Some(ms(40)));
        now += Duration::from_secs(86_400);
        feed(&mut delays, &mut now, true, [100].into_iter());
        assert_eq!(delays.base(), Some(ms(40)), "a day without probes is no evidence");
        feed(&mut delays, &mut now, true, (0..18_000).map(|n| 100 + n % 40));
        assert_eq!(delays.base(), Some(ms(100)), "after an hour of them nothing else is known");
    }

    #[test]
    fn a_longer_route_is_believed_after_half_a_minute_at_rest() {
        let (mut delays, mut now) = (Delays::default(), Instant::now());
        feed(&mut delays, &mut now, false, [40].into_iter());
        feed(&mut delays, &mut now, false, (0..400).map(|n| 65 + n % 3));
        assert_eq!(delays.base(), Some(ms(40)), "that may be this node's own queue");
        feed(&mut delays, &mut now, true, (0..160).map(|n| 90 + n % 3));
        assert_eq!(delays.base(), Some(ms(90)));
        feed(&mut delays, &mut now, true, [35].into_iter());
        assert_eq!(delays.base(), Some(ms(35)), "a shorter one at once");
    }
}
