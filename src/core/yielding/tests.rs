//! The controller against a link with a queue ([`super::link`]), over many seeds.

use std::time::Instant;

use super::link::{Dice, Link};
use super::*;

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
    for (n, leap) in [0, 0, 200, 0, 86_400_000, 200, 3_600_000].into_iter().cycle().take(400).enumerate() {
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
