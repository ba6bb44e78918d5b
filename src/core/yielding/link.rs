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
    /// How many of the probes meet a machine that stands still, for up to a second and a half.
    pub(super) stalls: f64,
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
            stalls: 0.0,
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
                let stalls = self.stalls > 0.0 && self.dice.roll() < self.stalls;
                let stall = if stalls { self.dice.between(0.1, 1.5) } else { 0.0 };
                let late = -self.dice.roll().max(1e-9).ln() * self.jitter + stall;
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::core::yielding::*;

    /// Links from 2 to 200 Mbit/s, near and far, with short and long queues.
    fn links() -> impl Iterator<Item = (u64, Link)> {
        let start = Instant::now();
        (0..60).map(move |seed| {
            let mut dice = Dice(seed * 7919 + 17);
            let mbit = 2.0 * 100f64.powf(dice.roll());
            let (base, queue) = (dice.between(4.0, 150.0), dice.between(80.0, 400.0));
            let mut link = Link::new(start, mbit, base, queue, dice);
            link.jitter = 0.001 + 0.004 * (seed % 4) as f64 / 3.0;
            link.probe_loss = 0.01 * (seed % 3) as f64;
            (seed, link)
        })
    }

    fn described(seed: u64, link: &Link) -> String {
        let Link { capacity, base, buffer, jitter, .. } = link;
        format!(
            "seed {seed}: {:.1} Mbit/s, {:.0} ms, queue {:.0} ms, jitter {:.1} ms",
            capacity / 125_000.0,
            base * 1e3,
            buffer / capacity * 1e3,
            jitter * 1e3
        )
    }

    #[test]
    fn alone_it_uses_the_link_and_keeps_the_queue_short() {
        for (seed, mut link) in links() {
            link.join(true);
            link.begin(0);
            link.run(10.0);
            let (came, wait) = link.run(120.0);
            let used = came[0] / (link.capacity * 120.0);
            assert!(used > 0.92, "{}: {used:.3}", described(seed, &link));
            assert!(wait < 0.045, "{}: {wait:.3}", described(seed, &link));
        }
    }

    #[test]
    fn a_machine_that_stands_still_at_times_is_no_transfer_of_others() {
        for (seed, mut link) in links().step_by(3) {
            link.stalls = 0.04;
            link.join(true);
            link.begin(0);
            link.run(10.0);
            let (came, wait) = link.run(120.0);
            let used = came[0] / (link.capacity * 120.0);
            assert!(used > 0.88, "{}: {used:.3}", described(seed, &link));
            assert!(wait < 0.045, "{}: {wait:.3}", described(seed, &link));
        }
    }

    #[test]
    fn a_foreground_transfer_keeps_its_rate_and_the_link_is_used_again_after_it() {
        let mut disturbed = 0;
        for (seed, mut link) in links() {
            link.foreground(true);
            link.run(60.0);
            let alone = link.foreground_came();
            link.foreground(false);
            link.run(5.0);
            link.join(true);
            link.begin(0);
            link.run(20.0);
            link.foreground(true);
            let (came, _) = link.run(60.0);
            let kept = link.foreground_came() / alone;
            // Where the queue is shorter than the round trip, CUBIC leaves the link idle at times.
            assert!(kept > 0.85, "{}: the foreground kept {kept:.3}", described(seed, &link));
            disturbed += usize::from(kept < 0.9);
            let least = 0.5 * FLOOR * link.capacity * 60.0;
            assert!(came[0] > least, "{}: it starved at {:.0}", described(seed, &link), came[0] / 60.0);
            link.foreground(false);
            link.run(10.0);
            let (came, _) = link.run(10.0);
            let used = came[0] / (link.capacity * 10.0);
            assert!(used > 0.85, "{}: used {used:.3} after it", described(seed, &link));
        }
        assert!(disturbed <= 3, "{disturbed} of 60");
    }

    #[test]
    fn it_finds_a_busy_link_and_leaves_it_for_long() {
        for (seed, mut link) in links().step_by(4) {
            link.join(true);
            link.foreground(true);
            link.run(30.0);
            let before = link.foreground_came();
            link.run(300.0);
            let alone = (link.foreground_came() - before) / 300.0;
            link.begin(0);
            let before = link.foreground_came();
            link.run(1200.0);
            let kept = (link.foreground_came() - before) / (alone * 1200.0);
            assert!(kept > 0.85, "{}: {kept:.3}", described(seed, &link));
            assert!(link.backgrounds[0].yielding.sums().held_back > Duration::from_secs(60));
        }
    }

    #[test]
    fn a_latecomer_has_no_advantage() {
        let mut leasts = Vec::new();
        for (seed, mut link) in links().step_by(2) {
            link.join(true);
            link.begin(0);
            link.run(30.0);
            link.join(false);
            link.begin(1);
            link.run(120.0);
            let (came, wait) = link.run(120.0);
            let sum = (came[0] + came[1]) / (link.capacity * 120.0);
            assert!(sum > 0.9, "{}: {sum:.3}", described(seed, &link));
            let least = came[0].min(came[1]) / (came[0] + came[1]);
            // Neither starves for long; where round trips are long, it takes minutes to even out.
            assert!(least > 0.05, "{}: {least:.3}", described(seed, &link));
            leasts.push(least);
            assert!(wait < 0.06, "{}: {wait:.3}", described(seed, &link));
        }
        let mean = leasts.iter().sum::<f64>() / leasts.len() as f64;
        assert!(mean > 0.25, "the smaller part is {mean:.3} in the mean");
    }

    #[test]
    fn lost_probes_are_a_full_queue() {
        let start = Instant::now();
        let mut link = Link::new(start, 20.0, 40.0, 100.0, Dice(3));
        link.join(true);
        link.begin(0);
        link.run(10.0);
        let yielding = &mut link.backgrounds[0].yielding;
        let (before, now) = (yielding.cap(), start + Duration::from_secs(12));
        (1..4).for_each(|n| yielding.lost(now + Duration::from_secs(2 * n), 0));
        assert!(yielding.cap().rate < before.rate / 6 && yielding.cap().window < before.window / 6);
        assert_eq!((yielding.state(), yielding.sums().lost), (State::GivesWay, 3));
        let until = yielding.holds_back_until(Duration::from_secs(3));
        assert!(until.is_some_and(|until| until < now + Duration::from_secs(4)), "the link may be dead");
    }

    #[test]
    fn time_that_stands_still_or_leaps_disturbs_nothing() {
        let start = Instant::now();
        let mut yielding = Yielding::new(start);
        yielding.begin(start, 0);
        for (n, leap) in [0, 0, 200, 0, 86_400_000, 200, 3_600_000].into_iter().cycle().take(400).enumerate()
        {
            let now = start + Duration::from_millis(leap);
            yielding.answered(now, Duration::from_millis(40 + (n as u64 % 7)), 1 << 20);
            let Cap { rate, window } = yielding.cap();
            assert!((LEAST as u64..10_000_000).contains(&rate) && window > 100, "{rate} {window}");
        }
    }

    #[test]
    fn what_another_limit_holds_back_does_not_grow_for_ever() {
        let start = Instant::now();
        let (mut now, mut yielding) = (start, Yielding::new(start));
        yielding.begin(now, 0);
        for n in 0..3000u64 {
            now += EVERY;
            yielding.answered(now, Duration::from_millis(40), n * 20_000); // 100 kB/s
        }
        assert!(yielding.cap().rate < 400_000, "{:?}", yielding.cap());
        assert_eq!(yielding.state(), State::Free);
    }
}
