//! How far behind a node is: whether it has the time to do what it means to do.
//!
//! A machine that has more to do than it can, or a host with too many guests, does everything late: it
//! hears late, answers late, and its timers are past when it looks at them. Who takes that for the others'
//! silence suspects the living, asks anew, fetches again, and so makes for more work where there was too
//! much. So each node measures how late it comes to its own deadlines, has that much more patience with
//! the others, and says the less often what can wait.

use std::time::{Duration, Instant};

/// What the newest counts for, in the mean of all.
const NEWEST: f64 = 0.25;
/// Nothing is taken for later than this: a machine that has slept is not behind for long.
pub const LATEST: Duration = Duration::from_secs(2);
/// After so long without news the lag begins to fade, and halves in this time.
const HALVES: Duration = Duration::from_secs(2);
/// A question and its answer wait so often for their turn: here, there, and in between.
const ROUND: u32 = 4;
/// And so many times is waited for before it is taken for lost.
const TURNS: u32 = 6;

/// A mean that forgets.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    value: Duration,
    at: Option<Instant>,
}

impl Mean {
    fn note(&mut self, now: Instant, value: Duration) {
        self.value = self.get(now).mul_f64(1.0 - NEWEST) + value.mul_f64(NEWEST);
        self.at = Some(now);
    }

    fn get(&self, now: Instant) -> Duration {
        let Some(at) = self.at else { return Duration::ZERO };
        let silent = now.saturating_duration_since(at).saturating_sub(HALVES);
        let halvings = silent.as_secs_f64() / HALVES.as_secs_f64();
        self.value.mul_f64(0.5f64.powf(halvings))
    }
}

/// How far behind a node is, by its own deadlines and by the answers to its questions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Strain {
    turns: Mean,
    rounds: Mean,
}

impl Strain {
    /// Something that was due then has its turn now.
    pub fn turn(&mut self, now: Instant, due: Instant) {
        self.turns.note(now, now.saturating_duration_since(due).min(LATEST));
    }

    /// A question has its answer after so long. What lies in the queues of both ends, and of the line
    /// between, neither end sees in another way.
    pub fn round(&mut self, now: Instant, took: Duration) {
        self.rounds.note(now, (took / ROUND).min(LATEST));
    }

    /// How far behind it is: what it does has its turn so late.
    pub fn lag(&self, now: Instant) -> Duration {
        self.turns.get(now).max(self.rounds.get(now))
    }
}

/// How much longer than usual to wait for others where somebody is late by so much.
pub fn patience(lag: Duration) -> Duration {
    lag * TURNS
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_node_that_is_always_late_knows_and_one_that_has_slept_forgets() {
        let (mut now, mut strain) = (Instant::now(), Strain::default());
        assert_eq!(strain.lag(now), Duration::ZERO);
        for _ in 0..20 {
            now += 400 * MS;
            strain.turn(now, now - 300 * MS);
        }
        assert!((250 * MS..=300 * MS).contains(&strain.lag(now)), "{:?}", strain.lag(now));
        assert!(strain.lag(now + 20 * HALVES) < MS, "nothing was late since");
        now += Duration::from_secs(3600);
        strain.turn(now, now - Duration::from_secs(3000));
        assert!(strain.lag(now) <= LATEST.mul_f64(NEWEST), "{:?}", strain.lag(now));
        (0..12).for_each(|n| strain.turn(now + n * MS, now + n * MS));
        assert!(strain.lag(now) < 50 * MS, "it keeps its deadlines again: {:?}", strain.lag(now));
        (0..20).for_each(|_| strain.round(now, Duration::from_secs(6)));
        assert!(strain.lag(now) > 1400 * MS, "a quarter of a round: {:?}", strain.lag(now));
    }
}
