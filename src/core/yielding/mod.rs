//! Giving way: what is pulled in the background leaves the site's link to others.
//!
//! After LEDBAT (RFC 6817), LEDBAT++ (draft-irtf-iccrg-ledbat-plus-plus) and, since this side only
//! receives, rLEDBAT (RFC 9840). Probes measure how long packets wait in the queue before the link
//! ([`delay`]). Below [`TARGET`] the rate grows, the less the nearer it is; above, it shrinks by a part, the more
//! the longer the wait. Other transfers fill the queue until packets are lost, so they soon have
//! the link; alone, this node keeps the queue at the target and uses all of the link.
//!
//! What differs, and why: a rate is kept here and not a window, since it has to hold for many
//! connections whose round trips nobody knows, some of them held back by a site's WAN limit; it grows
//! in proportion to what the link has shown to carry, so that a fast link is not waited for; and where the
//! queue stays empty, the rate returns to what it was by factors, as LEDBAT++ returns from a
//! slowdown. [`Cap::window`] bounds what is on its way, so that the queue cannot grow far past the target
//! even while nobody has noticed.

mod delay;
#[cfg(test)]
mod link;
mod pulled;

use std::time::{Duration, Instant};

use delay::Delays;
use pulled::Pulled;

/// The wait in the queue that is aimed at. LEDBAT++ has 60 ms, for senders that see only their own
/// delayed acknowledgements; a call or a click notices that, and half of it is still four times the jitter
/// of a busy machine.
pub const TARGET: Duration = Duration::from_millis(25);
/// Probes follow each other so closely, when the link is not very slow.
pub const EVERY: Duration = Duration::from_millis(200);
/// The first rate on a link that is not known, in bytes per second.
const START: f64 = 131_072.0;
/// Never less than this part of the best that was seen, nor than so many bytes per second.
const FLOOR: f64 = 0.015;
const LEAST: f64 = 8192.0;
/// The throttle stays ahead of the window, or the two together would use less than the link.
const LEAD: f64 = 1.5;
/// At the start, and when the queue has been empty for a while, the rate grows by this factor a probe.
const STARTING: f64 = 1.8;
const RETURNING: f64 = 1.3;
/// The start is over at this part of the target (LEDBAT++).
const STARTED: f64 = 0.75;
/// The latter up to near what came when the wait was last too long; this part of it is remembered the
/// next time.
const NEAR: f64 = 0.9;
const FORGETS: f64 = 0.85;
/// Else by this part of the best rate a second, or, where that is not known, of the present rate and a little.
const GROWTH: f64 = 0.08;
const UNKNOWN: f64 = 0.12;
const LITTLE: f64 = START / 8.0;
/// How a wait that is so many targets too long shrinks the rate, each probe; at most by half.
const SHRINK: f64 = 0.25;
/// A queue is empty below this part of the target; if it stays so for so long, nobody else is there.
const EMPTY: f64 = 0.3;
const QUIET: Duration = Duration::from_millis(1000);
/// If besides no wait was too long for so long, in which the steady growth would have filled the link, it is
/// tried by this factor whether more is free than ever was.
const DESERTED: Duration = Duration::from_secs(4);
const TRYING: f64 = 1.2;
/// The start is over after this time in any case: something else holds it back.
const LONGEST_START: Duration = Duration::from_secs(5);
/// When no empty queue was seen for so long, this node steps back for a moment, to see one: its own
/// queue must not become the base.
const UNSEEN: Duration = Duration::from_secs(45);
const LONGEST_LOOK: Duration = Duration::from_millis(1200);
/// Probes that a look takes, after those that were on their way before it.
const LOOK: usize = 3;
/// After a pause of this the link may be another.
const IDLE: Duration = Duration::from_secs(20);
/// It gives way while a wait that was too long is no older than this.
const OF_LATE: Duration = Duration::from_secs(2);

/// What the background may do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cap {
    /// Bytes per second, at most.
    pub rate: u64,
    /// Bytes on their way, at most.
    pub window: u64,
}

/// What a site's admin is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Looks how fast the link is.
    Starting,
    /// Nobody else is there: uses what there is.
    Free,
    /// Others use the link.
    GivesWay,
    /// Steps back for a moment, to see the link without its own traffic.
    Looking,
}

/// Since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// How long something was pulled in the background.
    pub active: Duration,
    /// Of it, how long it gave way.
    pub held_back: Duration,
    /// What could have come in that time at the best rate, and did not, in bytes.
    pub left: u64,
    /// Probes that were answered.
    pub answered: u64,
    /// Probes that were not.
    pub lost: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Starting { since: Instant },
    Steady,
    Looking { back_to: f64, until: Instant },
}

/// The controller of one node.
#[derive(Debug)]
pub struct Yielding {
    delays: Delays,
    pulled: Pulled,
    phase: Phase,
    /// Bytes per second.
    rate: f64,
    /// Up to here the rate returns by factors.
    threshold: f64,
    last: Instant,
    /// Since when the queue is empty.
    quiet: Option<Instant>,
    /// When an empty queue was last seen.
    seen_empty: Instant,
    /// When the wait was last too long.
    crowded: Option<Instant>,
    answered_at: Option<Instant>,
    sums: Sums,
}

impl Yielding {
    /// One that knows nothing of the link yet.
    pub fn new(now: Instant) -> Self {
        Self {
            delays: Delays::default(),
            pulled: Pulled::new(now),
            phase: Phase::Starting { since: now },
            rate: START,
            threshold: 0.0,
            last: now,
            quiet: None,
            seen_empty: now,
            crowded: None,
            answered_at: None,
            sums: Sums::default(),
        }
    }

    // ---- what it knows ---------------------------------------------------------------

    /// What the background may do now.
    pub fn cap(&self) -> Cap {
        let ahead = self.delays.base().unwrap_or_default() + TARGET;
        Cap { rate: (self.rate * LEAD) as u64, window: (self.rate * ahead.as_secs_f64()) as u64 }
    }

    /// What it is doing.
    pub fn state(&self) -> State {
        let of_late = self.is_crowded();
        match self.phase {
            Phase::Looking { .. } => State::Looking,
            _ if of_late && self.rate < (self.pulled.best() / 2.0).max(START) => State::GivesWay,
            Phase::Starting { .. } => State::Starting,
            Phase::Steady if self.rate < self.pulled.best() / 2.0 => State::Starting,
            Phase::Steady => State::Free,
        }
    }

    fn is_crowded(&self) -> bool {
        self.crowded.is_some_and(|crowded| self.last.saturating_duration_since(crowded) < OF_LATE)
    }

    /// Until when what is pulled in the background may be slow because of this, and not because the
    /// link is dead: until `patience` after a probe was answered.
    pub fn holds_back_until(&self, patience: Duration) -> Option<Instant> {
        self.answered_at.filter(|_| self.state() != State::Free).map(|at| at + patience)
    }

    /// The round trip with an empty queue.
    pub fn base(&self) -> Option<Duration> {
        self.delays.base()
    }

    /// The wait in the queue.
    pub fn queueing(&self) -> Option<Duration> {
        self.delays.queueing()
    }

    /// The best that was pulled of late, in bytes per second.
    pub fn best(&self) -> u64 {
        self.pulled.best() as u64
    }

    /// How it went.
    pub fn sums(&self) -> Sums {
        self.sums
    }

    // ---- what happens ----------------------------------------------------------------

    /// A look at the link while nothing is pulled: only the base is learnt.
    pub fn glimpse(&mut self, now: Instant, round_trip: Duration) {
        self.delays.add(now, round_trip, false);
    }

    /// Something is pulled in the background, of which `pulled` bytes have come in all.
    pub fn begin(&mut self, now: Instant, pulled: u64) {
        if now.saturating_duration_since(self.last) >= IDLE {
            self.phase = Phase::Starting { since: now };
            self.rate = (self.pulled.best() / 4.0).max(START);
            (self.quiet, self.crowded) = (None, None);
        }
        self.delays.forget_present();
        self.pulled.resume(now, pulled);
        (self.last, self.seen_empty) = (now, now);
    }

    /// A probe was answered after `round_trip`; `pulled` bytes have come in the background in all.
    pub fn answered(&mut self, now: Instant, round_trip: Duration, pulled: u64) {
        let time = self.pass(now, pulled);
        self.sums.answered += 1;
        self.answered_at = Some(now);
        let resting = self.rate <= self.floor() && !matches!(self.phase, Phase::Looking { .. });
        self.delays.add(now, round_trip, resting);
        let wait = self.delays.queueing().unwrap_or_default();
        let part = wait.as_secs_f64() / TARGET.as_secs_f64();
        if part >= EMPTY && !self.delays.are_sure() {
            // A short round trip is the proof of an empty queue; a long one alone proves nothing.
            return;
        }
        self.note(now, part);
        match self.phase {
            Phase::Starting { since } => self.start(now, time, part, since),
            Phase::Steady => self.steer(now, time, part),
            Phase::Looking { back_to, until } => self.look(now, part, back_to, until),
        }
        self.bound();
    }

    /// A probe was lost, or its answer took too long to wait for: the queue is full, or the link dead.
    pub fn lost(&mut self, now: Instant, pulled: u64) {
        self.pass(now, pulled);
        self.sums.lost += 1;
        (self.crowded, self.quiet) = (Some(now), None);
        self.phase = Phase::Steady;
        self.rate /= 2.0;
        self.bound();
    }

    /// Accounts for the time since the last probe.
    fn pass(&mut self, now: Instant, pulled: u64) -> f64 {
        let passed = now.saturating_duration_since(self.last);
        let came = self.pulled.came(now, pulled);
        self.sums.active += passed;
        if self.state() == State::GivesWay {
            self.sums.held_back += passed;
            let possible = self.pulled.best() * passed.as_secs_f64();
            self.sums.left += (possible as u64).saturating_sub(came);
        }
        self.last = self.last.max(now);
        passed.as_secs_f64().min(1.0)
    }

    fn note(&mut self, now: Instant, part: f64) {
        if part < EMPTY {
            self.quiet.get_or_insert(now);
            self.seen_empty = now;
        } else {
            self.quiet = None;
        }
        if part > 1.0 {
            if !self.is_crowded() {
                // Each time nearer to what is left to it, where others stay.
                self.threshold = (NEAR * self.pulled.lately()).max(self.threshold * FORGETS);
            }
            self.crowded = Some(now);
        }
    }

    fn start(&mut self, now: Instant, time: f64, part: f64, since: Instant) {
        if part > STARTED || now.saturating_duration_since(since) >= LONGEST_START {
            self.phase = Phase::Steady;
            self.threshold = NEAR * self.pulled.lately();
            // What little comes before there is much to ask for says nothing of the link.
            self.rate = self.rate.min(self.pulled.lately().max(START / 2.0));
        } else {
            self.rate *= STARTING.powf(self.turns(time));
        }
    }

    fn steer(&mut self, now: Instant, time: f64, part: f64) {
        if part > 1.0 {
            let shrink = (SHRINK * (part - 1.0)).min(0.5);
            self.rate *= (1.0 - shrink).powf(self.turns(time));
        } else {
            self.grow(now, time, part);
        }
        // At the floor it sees the queue without its own traffic all the time.
        let unseen = now.saturating_duration_since(self.seen_empty);
        if unseen >= UNSEEN && self.rate > 2.0 * self.floor() {
            self.delays.forget_present();
            self.phase = Phase::Looking { back_to: self.rate, until: now + LONGEST_LOOK };
            self.rate = self.floor();
        }
    }

    fn grow(&mut self, now: Instant, time: f64, part: f64) {
        let quiet = self.quiet.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let growth = (GROWTH * self.pulled.best()).max(UNKNOWN * self.rate + LITTLE);
        let steadily = self.rate + growth * (1.0 - part) * time;
        let factor = |factor: f64| self.rate * factor.powf(self.turns(time));
        let alone = self.crowded.is_none_or(|last| now.saturating_duration_since(last) >= DESERTED);
        self.rate = if quiet >= QUIET && self.rate < self.threshold {
            factor(RETURNING).min(self.threshold)
        } else if quiet >= QUIET && alone {
            factor(TRYING).max(steadily)
        } else {
            steadily
        };
    }

    fn look(&mut self, now: Instant, part: f64, back_to: f64, until: Instant) {
        // The first of them met what was still on its way.
        let seen = self.delays.samples() >= LOOK;
        if !(seen && part < EMPTY) && now < until {
            return;
        }
        self.seen_empty = now;
        self.phase = Phase::Steady;
        self.rate = if part > 1.0 { back_to / 2.0 } else { back_to };
    }

    /// How often it may be changed by a factor in so many seconds: what a change does is not seen
    /// before a round trip.
    fn turns(&self, seconds: f64) -> f64 {
        let round_trip = self.delays.base().unwrap_or_default() + self.delays.queueing().unwrap_or_default();
        (seconds / EVERY.max(round_trip).as_secs_f64()).min(3.0)
    }

    fn floor(&self) -> f64 {
        (self.pulled.best() * FLOOR).max(LEAST)
    }

    /// Not far beyond what comes: what is not used says nothing of the link.
    fn bound(&mut self) {
        let looking = matches!(self.phase, Phase::Looking { .. });
        let most = if looking { self.rate } else { 2.0 * self.pulled.lately().max(START / 2.0) };
        self.rate = self.rate.min(most).max(self.floor());
    }
}
