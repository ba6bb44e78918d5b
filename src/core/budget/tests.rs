//! Sites of several nodes that share a limit and a schedule.

use super::holder::LISTEN;
use super::*;

const LIMIT: u64 = 1_000_000;
const NOTHING: Rates = Rates { urgent: 0, foreground: 0, background: 0 };
const HUNGRY: Rates = Rates { foreground: LIMIT, ..NOTHING };
const QUIET: Rates = Rates { background: LIMIT, ..NOTHING };

fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

/// A site in which every word arrives at once.
struct Site {
    now: Instant,
    nodes: BTreeMap<NodeId, Budget>,
}

impl Site {
    fn of(count: u8) -> Self {
        let now = Instant::now();
        let mut site = Self { now, nodes: BTreeMap::new() };
        for n in 0..count {
            site.nodes.insert(node(n), Budget::new(now, node(n), Some(LIMIT)));
        }
        for a in 0..count {
            for b in (0..count).filter(|&b| b != a) {
                site.act(a, |now, budget| budget.joined(now, node(b), Some(LIMIT), true));
            }
        }
        site
    }

    fn act(&mut self, n: u8, act: impl FnOnce(Instant, &mut Budget)) {
        let now = self.now;
        if let Some(budget) = self.nodes.get_mut(&node(n)) {
            act(now, budget);
        }
        self.deliver();
    }

    fn deliver(&mut self) {
        loop {
            let mut words = Vec::new();
            for (from, budget) in &mut self.nodes {
                while let Some(act) = budget.poll() {
                    if let Act::Say { to, word } = act {
                        words.push((*from, to, word));
                    }
                }
            }
            if words.is_empty() {
                return;
            }
            for (from, to, word) in words {
                let now = self.now;
                self.nodes.get_mut(&to).into_iter().for_each(|it| it.hear(now, from, word));
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.nodes.values().filter_map(Budget::deadline).min().filter(|&at| at <= end)
        {
            self.now = self.now.max(next);
            let now = self.now;
            self.nodes.values_mut().for_each(|budget| budget.tick(now));
            self.deliver();
            self.now += Duration::from_millis(1);
        }
        self.now = end;
    }

    fn shares(&self) -> Vec<u64> {
        self.nodes
            .values()
            .map(|it| it.demand.map_or(0, |_| it.share().map_or(0, |share| share.sum())))
            .collect()
    }
}

#[test]
fn all_who_pull_have_equal_shares_and_the_rest_flows() {
    let mut site = Site::of(5);
    site.pass(Duration::from_secs(1));
    site.act(0, |now, budget| budget.demand(now, Some(HUNGRY)));
    site.pass(Duration::from_secs(1));
    assert_eq!(site.shares(), [LIMIT, 0, 0, 0, 0], "who is alone has all");
    (1..4).for_each(|n| site.act(n, |now, budget| budget.demand(now, Some(HUNGRY))));
    site.pass(Duration::from_millis(250));
    assert_eq!(site.shares(), [LIMIT / 4, LIMIT / 4, LIMIT / 4, LIMIT / 4, 0]);
    let little = Rates { foreground: LIMIT / 10, ..NOTHING };
    site.act(0, |now, budget| budget.demand(now, Some(little)));
    site.act(3, |now, budget| budget.demand(now, None));
    site.pass(Duration::from_millis(450));
    assert_eq!(site.shares(), [LIMIT / 10, LIMIT * 9 / 20, LIMIT * 9 / 20, 0, 0]);
}

#[test]
fn background_gives_way_and_does_not_starve() {
    let mut site = Site::of(3);
    site.pass(Duration::from_secs(1));
    site.act(0, |now, budget| budget.demand(now, Some(QUIET)));
    site.pass(Duration::from_secs(1));
    assert_eq!(site.shares(), [LIMIT, 0, 0]);
    site.act(1, |now, budget| budget.demand(now, Some(HUNGRY)));
    site.pass(Duration::from_millis(250));
    assert_eq!(site.shares(), [LIMIT / 20, LIMIT - LIMIT / 20, 0]);
}

#[test]
fn a_lost_holder_is_replaced_and_the_sum_stays_within_the_limit() {
    let mut site = Site::of(6);
    (0..6).for_each(|n| site.act(n, |now, budget| budget.demand(now, Some(HUNGRY))));
    site.pass(Duration::from_secs(1));
    let lost = site.nodes[&node(0)].holder();
    site.nodes.remove(&lost);
    for n in 0..6 {
        site.act(n, |now, budget| budget.left(now, lost));
    }
    for _ in 0..40 {
        site.pass(Duration::from_millis(50));
        assert!(site.shares().iter().sum::<u64>() <= LIMIT, "{:?}", site.shares());
    }
    assert_eq!(site.shares(), [LIMIT / 5; 5]);
}

/// The nodes of a site, in turn the one that holds its budget and all others.
fn holder_and_others(site: &Site) -> (u8, Vec<u8>) {
    let holder = site.nodes[&node(0)].holder();
    let (mut at, others): (Vec<u8>, Vec<u8>) = (0..site.nodes.len() as u8).partition(|&n| node(n) == holder);
    (at.pop().expect("one of them"), others)
}

#[test]
fn a_new_holder_that_has_heard_all_listens_no_longer() {
    let mut site = Site::of(6);
    site.pass(Duration::from_secs(1));
    let (lost, others) = holder_and_others(&site);
    site.act(lost, |now, budget| budget.demand(now, Some(HUNGRY)));
    site.pass(Duration::from_secs(5));
    // It pulled, too: all that it had is free, once it is known that nobody else has a share.
    site.nodes.remove(&node(lost));
    let first = others[0];
    others.iter().for_each(|&n| site.act(n, |now, budget| budget.left(now, node(lost))));
    site.act(first, |now, budget| budget.demand(now, Some(HUNGRY)));
    assert_eq!(site.nodes[&node(first)].share().map(|share| share.foreground), Some(LIMIT));
}

#[test]
fn a_new_holder_listens_to_who_says_nothing() {
    let now = Instant::now();
    let outranks = |n: &u8| rank::outranks(KEY, (node(1), 1), (node(*n), 1));
    let below: Vec<NodeId> = (2..40).filter(outranks).take(2).map(node).collect();
    let grants = |budget: &mut Budget| {
        let acts: Vec<Act> = std::iter::from_fn(|| budget.poll()).collect();
        acts.iter().filter(|act| matches!(act, Act::Say { word: Word::Grant(_), .. })).count()
    };
    let mut holder = Budget::new(now, node(1), Some(LIMIT));
    let above = (2..40).map(node).find(|it| rank::outranks(KEY, (*it, 1), (node(1), 1))).expect("a better");
    below.iter().chain([&above]).for_each(|&it| holder.joined(now, it, None, true));
    let ask = Word::Ask { demand: HUNGRY, share: HUNGRY };
    holder.hear(now, below[0], ask); // it knows before this node does
    holder.left(now, above);
    assert_eq!(grants(&mut holder), 0, "the other may have a share still");
    holder.hear(now + LISTEN / 2, below[1], Word::Ask { demand: NOTHING, share: NOTHING });
    assert_eq!(grants(&mut holder), 1, "it has none");
    holder.joined(now, above, None, true);
    let later = now + Duration::from_secs(5);
    holder.left(later, above);
    holder.hear(later, below[0], ask);
    assert_eq!(grants(&mut holder), 0);
    holder.hear(later + LISTEN, below[0], ask);
    assert_eq!(grants(&mut holder), 1, "whose share has run out meanwhile");
}

#[test]
fn what_a_lost_node_had_is_for_the_others_at_once() {
    let mut site = Site::of(6);
    site.pass(Duration::from_secs(1));
    let (holder, others) = holder_and_others(&site);
    others[..2].iter().for_each(|&n| site.act(n, |now, budget| budget.demand(now, Some(HUNGRY))));
    site.pass(Duration::from_millis(450));
    let share = |site: &Site| site.nodes[&node(others[0])].share().map(|share| share.foreground);
    assert_eq!(share(&site), Some(LIMIT / 2));
    site.nodes.remove(&node(others[1]));
    site.act(holder, |now, budget| budget.left(now, node(others[1])));
    assert_eq!(share(&site), Some(LIMIT));
}

#[test]
fn who_hears_of_no_holder_uses_ever_less() {
    let now = Instant::now();
    let mut lone = Budget::new(now, node(1), Some(LIMIT));
    let other = (2..40).map(node).find(|&it| rank::outranks(KEY, (it, 1), (node(1), 1))).expect("a better");
    lone.joined(now, other, None, true);
    lone.demand(now, Some(HUNGRY));
    lone.hear(now, other, Word::Grant(HUNGRY));
    let mut at = now;
    for _ in 0..100 {
        at += ASK;
        lone.tick(at);
    }
    let sum = lone.share().map_or(0, |share| share.sum());
    assert!((1..=LIMIT / 16).contains(&sum), "{sum}");
}

#[test]
fn the_lowest_limit_of_all_holds() {
    let now = Instant::now();
    let mut budget = Budget::new(now, node(1), None);
    assert_eq!((budget.limit(), budget.poll()), (None, Some(Act::Keep(None))));
    budget.joined(now, node(2), Some(500), true);
    budget.joined(now, node(3), Some(400), false);
    assert_eq!(budget.limit(), Some(400));
    budget.left(now, node(3));
    budget.left(now, node(2));
    assert_eq!((budget.limit(), budget.share()), (None, None));
}

const URGENT: Rates = Rates { urgent: LIMIT, ..NOTHING };

fn caps(foreground: u64, background: u64) -> Rule {
    Rule { caps: Some(Caps { foreground, background }), month_used: None }
}

#[test]
fn the_holders_clock_alone_decides() {
    let mut site = Site::of(4);
    site.pass(Duration::from_secs(1));
    (0..4).for_each(|n| site.act(n, |now, budget| budget.demand(now, Some(HUNGRY))));
    site.pass(Duration::from_secs(1));
    let holder = site.nodes[&node(0)].holder();
    let at = (0..4).find(|&n| node(n) == holder).expect("one of them");
    // The clocks of the others are an hour ahead: that means nothing.
    for n in (0..4).filter(|&n| n != at) {
        site.act(n, |now, budget| budget.set_rule(now, caps(0, 0)));
    }
    assert!(
        site.nodes.values().all(|it| it.rule().caps.is_none()) || site.nodes[&holder].rule().caps.is_none()
    );
    site.act(at, |now, budget| budget.set_rule(now, caps(LIMIT / 2, 0)));
    assert!(site.nodes.values().all(|it| it.rule() == caps(LIMIT / 2, 0)), "all know at once");
    assert!(site.shares().iter().sum::<u64>() <= LIMIT / 2, "and keep to it: {:?}", site.shares());
    site.pass(Duration::from_millis(450));
    assert_eq!(site.shares(), [LIMIT / 8; 4]);
    site.act(at, |now, budget| budget.set_rule(now, caps(0, 0)));
    assert_eq!(site.shares(), [0; 4], "closed at once");
    site.act(0, |now, budget| budget.demand(now, Some(URGENT)));
    site.pass(Duration::from_millis(450));
    assert_eq!(site.shares(), [LIMIT, 0, 0, 0], "urgent is bound by the limit alone");
    site.act(at, |now, budget| budget.set_rule(now, Rule::default()));
    site.act(0, |now, budget| budget.demand(now, Some(HUNGRY)));
    site.pass(Duration::from_millis(450));
    assert_eq!(site.shares(), [LIMIT / 4; 4], "and open again by itself");
}

#[test]
fn a_new_holder_goes_by_its_own_clock_and_who_comes_late_is_told() {
    let mut site = Site::of(3);
    site.pass(Duration::from_secs(1));
    let rule = caps(300_000, LIMIT / 8);
    (0..3).for_each(|n| site.act(n, |now, budget| budget.set_rule(now, rule)));
    (0..3).for_each(|n| site.act(n, |now, budget| budget.demand(now, Some(HUNGRY))));
    site.pass(Duration::from_secs(1));
    assert_eq!(site.shares(), [100_000; 3]);
    let lost = site.nodes[&node(0)].holder();
    site.nodes.remove(&lost);
    (0..3).for_each(|n| site.act(n, |now, budget| budget.left(now, lost)));
    for _ in 0..40 {
        site.pass(Duration::from_millis(50));
        assert!(site.shares().iter().sum::<u64>() <= 300_000, "{:?}", site.shares());
    }
    assert_eq!(site.shares(), [150_000; 2]);
    let now = site.now;
    let mut late = Budget::new(now, node(9), None);
    site.nodes.keys().for_each(|it| late.joined(now, *it, Some(LIMIT), true));
    site.nodes.insert(node(9), late);
    for n in 0..3 {
        site.act(n, |now, budget| budget.joined(now, node(9), None, false));
    }
    assert_eq!(site.nodes[&node(9)].rule(), rule);
}

#[test]
fn a_schedule_binds_also_without_a_limit() {
    let now = Instant::now();
    let mut budget = Budget::new(now, node(1), None);
    budget.demand(now, Some(Rates { foreground: UNLIMITED, ..NOTHING }));
    assert!(!budget.is_bound() && budget.deadline().is_none());
    budget.set_rule(now, caps(500, 100));
    assert_eq!(budget.share().map(|share| share.foreground), Some(500));
    budget.demand(now, Some(Rates { urgent: UNLIMITED, ..NOTHING }));
    budget.tick(now + ASK);
    assert_eq!(budget.share().map(|share| share.urgent), Some(UNLIMITED));
    budget.set_rule(now, Rule::default());
    assert_eq!(budget.share(), None);
}
