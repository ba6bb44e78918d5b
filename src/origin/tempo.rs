//! How fast a connection is read, and how far ahead of its reader its sender needs to be.

use std::time::{Duration, Instant};

/// A rate is measured over so long.
const OVER: Duration = Duration::from_millis(100);
/// The fastest rate of this and the span before it counts: a pause between two answers slows nobody.
const SPAN: Duration = Duration::from_secs(1);
/// Beyond its round trip, a sender is held to what comes in half of that, and at least in so long: a reader
/// may be late, and it may grow.
const AHEAD: Duration = Duration::from_millis(50);
/// It is never held to less, in bytes.
const LEAST: f64 = (128 << 10) as f64;

/// The rate at which a connection is read.
#[derive(Debug)]
pub(super) struct Tempo {
    /// Bytes read by when.
    measured: (u64, Instant),
    /// In bytes per second.
    rate: f64,
    span: Instant,
    fastest: f64,
    /// The fastest of the span before; `None` in the first, when nobody knows yet what is to come.
    fastest_before: Option<f64>,
}

impl Tempo {
    pub(super) fn new(now: Instant) -> Self {
        Self { measured: (0, now), rate: 0.0, span: now, fastest: 0.0, fastest_before: None }
    }

    /// So many bytes have been read since the connection began.
    pub(super) fn read(&mut self, now: Instant, read: u64) {
        let (before, at) = self.measured;
        let time = now.saturating_duration_since(at);
        if time < OVER {
            return;
        }
        self.rate = (read - before) as f64 / time.as_secs_f64();
        self.measured = (read, now);
        if now.saturating_duration_since(self.span) >= SPAN {
            (self.fastest_before, self.fastest, self.span) = (Some(self.fastest), 0.0, now);
        }
        self.fastest = self.fastest.max(self.rate);
    }

    /// In bytes per second.
    pub(super) fn rate(&self) -> f64 {
        self.rate
    }

    /// Bytes that come in a round trip.
    pub(super) fn in_a(&self, round_trip: Duration) -> u64 {
        (self.rate * round_trip.as_secs_f64()) as u64
    }

    /// How many bytes a sender may be ahead of the reader and lose nothing by it; `None` while it is not
    /// known. The system's own measure grows with each burst and never shrinks: a process that hangs would
    /// be sent all that, for nobody.
    pub(super) fn ahead(&self, round_trip: Duration) -> Option<usize> {
        let rate = self.fastest.max(self.fastest_before?);
        let time = round_trip + AHEAD.max(round_trip / 2);
        (!round_trip.is_zero()).then(|| (rate * time.as_secs_f64()).max(LEAST) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(100);

    /// In thousands of bytes.
    fn ahead(tempo: &Tempo, round_trip: Duration) -> Option<usize> {
        tempo.ahead(round_trip).map(|bytes| (bytes + 500) / 1000)
    }

    /// Reads 5 MB/s for so many tenths of a second.
    fn reads(tempo: &mut Tempo, from: Instant, bytes: &mut u64, tenths: u32) -> Instant {
        for tenth in 1..=tenths {
            *bytes += 500_000;
            tempo.read(from + tenth * OVER, *bytes);
        }
        from + tenths * OVER
    }

    #[test]
    fn a_sender_may_be_a_round_trip_and_a_little_ahead() {
        let (start, mut bytes) = (Instant::now(), 0);
        let mut tempo = Tempo::new(start);
        let now = reads(&mut tempo, start, &mut bytes, 9);
        assert_eq!(ahead(&tempo, ROUND_TRIP), None, "it may still grow");
        assert_eq!(tempo.in_a(ROUND_TRIP), 500_000);
        reads(&mut tempo, now, &mut bytes, 2);
        assert_eq!(ahead(&tempo, ROUND_TRIP), Some(750));
        assert_eq!(ahead(&tempo, Duration::from_millis(1)), Some(255), "a reader may be late");
        assert_eq!(ahead(&tempo, 6 * ROUND_TRIP), Some(4500), "over a satellite");
        assert_eq!(tempo.ahead(Duration::ZERO), None, "a round trip that nobody measured");
    }

    #[test]
    fn a_pause_is_forgiven_and_a_slower_link_noticed() {
        let (start, mut bytes) = (Instant::now(), 0);
        let mut tempo = Tempo::new(start);
        let mut now = reads(&mut tempo, start, &mut bytes, 11);
        now += 8 * OVER;
        tempo.read(now, bytes);
        assert_eq!((tempo.rate(), ahead(&tempo, ROUND_TRIP)), (0.0, Some(750)), "a pause");
        for _ in 0..20 {
            now += OVER;
            bytes += 200_000;
            tempo.read(now, bytes);
        }
        assert_eq!(ahead(&tempo, ROUND_TRIP), Some(300), "a slower link");
        assert_eq!(tempo.ahead(Duration::from_millis(1)), Some(LEAST as usize));
    }
}
