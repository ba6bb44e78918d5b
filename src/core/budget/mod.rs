//! One WAN limit for the whole site, shared out among the nodes that pull.
//!
//! One node holds the budget: the best-ranked of the live ones for a fixed key, so all agree on it
//! without a vote. Whoever pulls tells the holder several times a second how much it could use,
//! and is answered with its share, which is good for a short [`TERM`]. Shares are max-min fair
//! ([`share`]): who needs less than an equal part leaves the rest to those who need more.
//! Foreground comes first; background has what is left, and a little at least.
//!
//! The sum of the shares is never more than the limit, but for a term after the holder was lost:
//! the next one first listens for a moment ([`holder`]), while the old shares run on. A node that hears of no
//! holder goes on with half of its share each term, down to a sixteenth of the limit.
//!
//! The site's limit is the lowest that any live node has set.

mod holder;
mod share;
mod words;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::id::NodeId;
use super::rank;
use share::{Asker, BACKGROUND};
pub use words::{Act, Rates, Word};

/// A share is good for so long.
const TERM: Duration = Duration::from_millis(1500);
/// Who pulls tells its demand this often.
const ASK: Duration = Duration::from_millis(200);
/// Who has no share yet, or hears of no holder, may use this part.
const SOLITARY: u64 = 16;
const KEY: &[u8; 32] = b"branchline: holder of wan budget";

#[derive(Debug, Clone, Copy)]
struct Member {
    limit: Option<u64>,
    may_hold: bool,
}

/// This node's part in the budget, and all of it if it is the holder.
#[derive(Debug)]
pub struct Budget {
    me: NodeId,
    mine: Member,
    members: BTreeMap<NodeId, Member>,
    holder: NodeId,
    /// Since when this node is the holder.
    since: Instant,
    askers: BTreeMap<NodeId, Asker>,
    demand: Option<Rates>,
    asked: Option<Instant>,
    share: Option<Rates>,
    good_until: Instant,
    acts: VecDeque<Act>,
}

impl Budget {
    /// A budget of a node that knows no other yet. `limit` in bytes per second.
    pub fn new(now: Instant, me: NodeId, limit: Option<u64>) -> Self {
        let mut budget = Self {
            me,
            mine: Member { limit, may_hold: true },
            members: BTreeMap::new(),
            holder: me,
            since: now,
            askers: BTreeMap::new(),
            demand: None,
            asked: None,
            share: None,
            good_until: now,
            acts: VecDeque::new(),
        };
        budget.start_alone(now);
        budget
    }

    // ---- what it knows ---------------------------------------------------------------

    /// The site's limit: the lowest that anybody has set, in bytes per second.
    pub fn limit(&self) -> Option<u64> {
        self.members.values().chain([&self.mine]).filter_map(|member| member.limit).min()
    }

    /// Who shares it out.
    pub fn holder(&self) -> NodeId {
        self.holder
    }

    /// What this node may use; `None`: as much as it likes.
    pub fn share(&self) -> Option<Rates> {
        self.share
    }

    /// When to call [`Budget::tick`] at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.demand?;
        self.limit()?;
        Some(self.asked.map_or(self.since, |asked| asked + ASK).min(self.good_until))
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    // ---- what happens ----------------------------------------------------------------

    /// A member is there, or has changed. `may_hold` is false for nodes that the others are not
    /// all connected to.
    pub fn joined(&mut self, now: Instant, node: NodeId, limit: Option<u64>, may_hold: bool) {
        let before = self.limit();
        self.members.insert(node, Member { limit, may_hold });
        self.look_for_holder(now, before);
    }

    /// Whether this node may hold the budget.
    pub fn may_hold(&mut self, now: Instant, may_hold: bool) {
        let before = self.limit();
        self.mine.may_hold = may_hold;
        self.look_for_holder(now, before);
    }

    /// A member has left.
    pub fn left(&mut self, now: Instant, node: NodeId) {
        let before = self.limit();
        self.members.remove(&node);
        self.askers.remove(&node);
        self.look_for_holder(now, before);
    }

    /// What this node could use now; `None` when it pulls nothing.
    pub fn demand(&mut self, now: Instant, demand: Option<Rates>) {
        let news = demand.is_some() != self.demand.is_some();
        self.demand = demand;
        if demand.is_none() {
            self.asked = None;
            if news && self.limit().is_some() {
                self.say(now, Rates::default()); // its share is free at once
            }
        } else if news {
            self.tick(now);
        }
    }

    /// A member says something.
    pub fn hear(&mut self, now: Instant, from: NodeId, word: Word) {
        match word {
            Word::Ask { demand, share } if self.members.contains_key(&from) => {
                self.on_ask(now, from, demand, share);
            }
            Word::Grant(share) if from == self.holder && self.limit().is_some() => self.keep(now, share),
            _ => {}
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        let (Some(limit), Some(demand)) = (self.limit(), self.demand) else { return };
        if self.good_until <= now {
            let least = limit / SOLITARY;
            let share = self.share.unwrap_or_default();
            let half = |part: u64| (part / 2).max(least / 2).min(limit / 2);
            self.good_until = now + TERM;
            self.set(Rates { foreground: half(share.foreground), background: half(share.background) });
        }
        if self.asked.is_none_or(|asked| asked + ASK <= now) {
            self.asked = Some(now);
            self.say(now, demand);
        }
    }

    // ---- moving on -------------------------------------------------------------------

    fn look_for_holder(&mut self, now: Instant, limit_before: Option<u64>) {
        let weight = |member: &Member| u32::from(member.may_hold);
        let all = self.members.iter().map(|(node, member)| (*node, weight(member)));
        let ranked = rank::rank(KEY, all.chain([(self.me, weight(&self.mine))]));
        if ranked[0] != self.holder {
            self.holder = ranked[0];
            self.since = now;
            self.askers.clear();
            self.asked = None;
        }
        if self.limit() != limit_before {
            self.start_alone(now);
        }
        self.tick(now);
    }

    /// The limit is new: until the holder has spoken, a small part of it.
    fn start_alone(&mut self, now: Instant) {
        self.asked = None;
        let Some(limit) = self.limit() else {
            self.share = None;
            return self.acts.push_back(Act::Keep(None));
        };
        self.good_until = now + TERM;
        let part = if self.members.is_empty() { limit } else { limit / SOLITARY };
        self.set(Rates { foreground: part - part / BACKGROUND, background: part / BACKGROUND });
    }

    fn say(&mut self, now: Instant, demand: Rates) {
        let share = self.share.unwrap_or_default();
        if self.holder == self.me {
            self.on_ask(now, self.me, demand, share);
        } else {
            self.acts.push_back(Act::Say { to: self.holder, word: Word::Ask { demand, share } });
        }
    }

    fn keep(&mut self, now: Instant, share: Rates) {
        let limit = self.limit().unwrap_or(u64::MAX);
        self.good_until = now + TERM;
        self.set(Rates { foreground: share.foreground.min(limit), background: share.background.min(limit) });
    }

    fn set(&mut self, share: Rates) {
        if self.share != Some(share) {
            self.share = Some(share);
            self.acts.push_back(Act::Keep(Some(share)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1_000_000;
    const HUNGRY: Rates = Rates { foreground: LIMIT, background: 0 };
    const QUIET: Rates = Rates { foreground: 0, background: LIMIT };

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
            while let Some(next) =
                self.nodes.values().filter_map(Budget::deadline).min().filter(|&at| at <= end)
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
        let little = Rates { foreground: LIMIT / 10, background: 0 };
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

    #[test]
    fn who_hears_of_no_holder_uses_ever_less() {
        let now = Instant::now();
        let mut lone = Budget::new(now, node(1), Some(LIMIT));
        let other =
            (2..40).map(node).find(|&it| rank::outranks(KEY, (it, 1), (node(1), 1))).expect("a better");
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
}
