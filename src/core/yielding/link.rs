//! A link with a queue, as a fluid: what the controller is tried against.
//!
//! The foreground is a TCP that fills the queue until packets are lost. Each background is limited by its
//! controller's rate and window alone, and follows them one round trip late. Probes meet the queue, jitter and loss.

use std::time::{Duration, Instant};

use super::{EVERY, Yielding};

const STEP: f64 = 0.002;
const SEGMENT: f64 = 1448.0;

/// Numbers by a seed.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// From 0 to 1.
    pub(super) fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / (1u64 << 24) as f64
    }

    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + self.roll() * (high - low)
    }
}

/// One node that pulls in the background.
pub(super) struct Background {
    pub(super) yielding: Yielding,
    pub(super) on: bool,
    pub(super) came: f64,
    inflow: f64,
    next_probe: f64,
    /// When it is answered, and after how long; `None`: never.
    probe: Option<(f64, Option<f64>)>,
}

/// CUBIC (RFC 9438), as most servers have it.
struct Foreground {
    window: f64,
    came: f64,
    starting: bool,
    /// Its window at the last loss, in segments, and when that was.
    most: f64,
    lost: f64,
    deaf_until: f64,
}

impl Foreground {
    fn lose(&mut self, time: f64, round_trip: f64) {
        (self.most, self.lost, self.starting) = (self.window / SEGMENT, time, false);
        self.window = (self.window * 0.7).max(2.0 * SEGMENT);
        self.deaf_until = time + round_trip;
    }

    fn grow(&mut self, time: f64, round_trip: f64) {
        if self.starting {
            self.window *= 2f64.powf(STEP / round_trip);
            return;
        }
        let plateau = (self.most * 0.3 / 0.4).cbrt();
        let cubic = 0.4 * (time - self.lost + round_trip - plateau).powi(3) + self.most;
        let reno = self.window + 0.53 * SEGMENT * STEP / round_trip;
        // At most by half a round trip.
        let most = self.window * (1.0 + 0.5 * STEP / round_trip);
        self.window = (cubic * SEGMENT).min(most).max(reno);
    }
}

pub(super) struct Link {
    start: Instant,
    pub(super) time: f64,
    /// Bytes per second.
    pub(super) capacity: f64,
    /// Seconds there and back with an empty queue.
    pub(super) base: f64,
    /// Bytes that wait at most.
    pub(super) buffer: f64,
    pub(super) jitter: f64,
    pub(super) probe_loss: f64,
    pub(super) backgrounds: Vec<Background>,
    foreground: Option<Foreground>,
    queue: f64,
    dice: Dice,
}

impl Link {
    /// Of megabits per second, milliseconds there and back, milliseconds of queue.
    pub(super) fn new(start: Instant, mbit: f64, base_ms: f64, queue_ms: f64, dice: Dice) -> Self {
        let capacity = mbit * 125_000.0;
        Self {
            start,
            time: 0.0,
            capacity,
            base: base_ms / 1e3,
            buffer: (capacity * queue_ms / 1e3).max(4.0 * SEGMENT),
            jitter: 0.002,
            probe_loss: 0.0,
            backgrounds: Vec::new(),
            foreground: None,
            queue: 0.0,
            dice,
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_secs_f64(self.time)
    }

    fn wait(&self) -> f64 {
        self.queue / self.capacity
    }

    /// A node that saw the link when it started, `at_rest` or as it is.
    pub(super) fn join(&mut self, at_rest: bool) {
        let mut yielding = Yielding::new(self.now());
        let wait = if at_rest { 0.0 } else { self.wait() };
        yielding.glimpse(self.now(), Duration::from_secs_f64(self.base + wait));
        let next_probe = self.time;
        let node = Background { yielding, on: false, came: 0.0, inflow: 0.0, next_probe, probe: None };
        self.backgrounds.push(node);
    }

    pub(super) fn begin(&mut self, node: usize) {
        let now = self.now();
        let node = &mut self.backgrounds[node];
        (node.on, node.next_probe) = (true, self.time);
        node.yielding.begin(now, node.came as u64);
    }

    pub(super) fn foreground(&mut self, on: bool) {
        let window = 10.0 * SEGMENT;
        let new = Foreground { window, came: 0.0, starting: true, most: 0.0, lost: 0.0, deaf_until: 0.0 };
        self.foreground = on.then_some(new);
    }

    pub(super) fn foreground_came(&self) -> f64 {
        self.foreground.as_ref().map_or(0.0, |foreground| foreground.came)
    }

    /// Lets time pass; what each background brought in it, and the mean wait in the queue in seconds.
    pub(super) fn run(&mut self, seconds: f64) -> (Vec<f64>, f64) {
        let before: Vec<f64> = self.backgrounds.iter().map(|node| node.came).collect();
        let (end, mut waits) = (self.time + seconds, 0.0);
        while self.time < end {
            self.step();
            waits += self.wait() * STEP;
        }
        let came = self.backgrounds.iter().zip(before).map(|(node, before)| node.came - before).collect();
        (came, waits / seconds)
    }

    fn step(&mut self) {
        let round_trip = self.base + self.wait();
        let busy = self.foreground.as_ref().map_or(0.0, |it| it.window / round_trip);
        for node in self.backgrounds.iter_mut().filter(|node| node.on) {
            let cap = node.yielding.cap();
            let wanted = (cap.rate as f64).min(cap.window as f64 / round_trip);
            node.inflow += (wanted - node.inflow) * (STEP / round_trip).min(1.0);
        }
        let quiet: f64 = self.backgrounds.iter().filter(|node| node.on).map(|node| node.inflow).sum();
        let arriving = busy + quiet;
        let leaving = (self.queue / STEP + arriving).min(self.capacity);
        self.queue += (arriving - leaving) * STEP;
        let overflow = self.queue > self.buffer;
        self.queue = self.queue.min(self.buffer);
        for node in self.backgrounds.iter_mut().filter(|node| node.on && arriving > 0.0) {
            node.came += leaving * STEP * node.inflow / arriving;
        }
        if let Some(it) = &mut self.foreground {
            it.came += leaving * STEP * busy / arriving;
            if overflow && self.time >= it.deaf_until {
                it.lose(self.time, round_trip);
            } else {
                it.grow(self.time, round_trip);
            }
        }
        self.time += STEP;
        self.probe();
    }

    fn probe(&mut self) {
        let (now, round_trip) = (self.now(), self.base + self.wait());
        for node in self.backgrounds.iter_mut().filter(|node| node.on) {
            if node.probe.is_none() && self.time >= node.next_probe {
                let late = -self.dice.roll().max(1e-9).ln() * self.jitter;
                let lost = self.dice.roll() < self.probe_loss;
                let after = round_trip + late + if lost { 0.25 } else { 0.0 };
                let answer = if lost && self.dice.roll() < 0.2 { None } else { Some(after) };
                node.probe = Some((self.time + answer.unwrap_or(2.0), answer));
                node.next_probe = self.time + EVERY.as_secs_f64();
            }
            let Some((_, answer)) = node.probe.filter(|(at, _)| *at <= self.time) else { continue };
            node.probe = None;
            match answer {
                Some(after) => node.yielding.answered(now, Duration::from_secs_f64(after), node.came as u64),
                None => node.yielding.lost(now, node.came as u64),
            }
        }
    }
}
