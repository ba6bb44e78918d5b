//! One WAN limit for the whole site, shared out among the nodes that pull.
//!
//! One node holds the budget: the best-ranked of the live ones for a fixed key, so all agree on it
//! without a vote. Whoever pulls tells the holder several times a second how much it could use,
//! and is answered with its share, which is good for a short [`TERM`]. Shares are max-min fair
//! ([`share`]): who needs less than an equal part leaves the rest to those who need more.
//! Urgent comes first, then foreground; background has what is left, and a little at least. The site's
//! schedule caps foreground and background; the limit alone binds urgent. Every node works out from its
//! own clock what the schedule says, and only the holder's word counts: it tells all what holds.
//!
//! The sum of the shares is never more than the limit, but for a term after the holder was lost:
//! the next one first listens ([`holder`]) until all have told it what they go by, or for a moment, while the
//! old shares run on. A node that hears of no holder goes on with half of its share each term, down to a
//! sixteenth of the limit.
//!
//! The site's limit is the lowest that any live node has set.

mod holder;
mod share;
mod words;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::flight::Urgency;
use super::id::NodeId;
use super::rank;
use share::{Asker, BACKGROUND, Bounds};
pub use words::{Act, Caps, Rates, Rule, UNLIMITED, Word};

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
    /// By this node's clock.
    own_rule: Rule,
    /// As members have told when they were the holder: one may be so before this node knows.
    heard_rules: BTreeMap<NodeId, Rule>,
    /// What was last made of them.
    keeps: Option<Caps>,
    holder: NodeId,
    /// Since when this node is the holder.
    since: Instant,
    askers: BTreeMap<NodeId, Asker>,
    /// When members last said what they go by, to this node as the holder.
    told: BTreeMap<NodeId, Instant>,
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
            own_rule: Rule::default(),
            heard_rules: BTreeMap::new(),
            keeps: None,
            holder: me,
            since: now,
            askers: BTreeMap::new(),
            told: BTreeMap::new(),
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

    /// What the site goes by: as the holder says, if it is known.
    pub fn rule(&self) -> Rule {
        let heard = self.heard_rules.get(&self.holder).filter(|_| self.holder != self.me);
        heard.copied().unwrap_or(self.own_rule)
    }

    /// Whether there is anything to keep to.
    pub fn is_bound(&self) -> bool {
        self.limit().is_some() || self.rule().caps.is_some()
    }

    /// The most of one kind that the whole site may use, in bytes per second.
    pub fn most(&self, urgency: Urgency) -> u64 {
        let Bounds { total, caps } = self.bounds();
        total.min(caps.of(urgency))
    }

    fn bounds(&self) -> Bounds {
        let total = self.limit().unwrap_or(UNLIMITED).min(UNLIMITED);
        Bounds { total, caps: self.rule().caps.unwrap_or(Caps::OPEN) }
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
        self.is_bound().then_some(())?;
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
        let new = self.members.insert(node, Member { limit, may_hold }).is_none();
        self.look_for_holder(now, before);
        if new && self.holder == self.me && self.own_rule != Rule::default() {
            self.acts.push_back(Act::Say { to: node, word: Word::Rule(self.own_rule) });
        }
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
        self.told.remove(&node);
        let was_asking = self.askers.remove(&node).is_some();
        self.heard_rules.remove(&node);
        self.look_for_holder(now, before);
        if was_asking {
            self.share_again(now); // what it had is for the others
        }
    }

    /// What this node could use now; `None` when it pulls nothing.
    pub fn demand(&mut self, now: Instant, demand: Option<Rates>) {
        let news = demand.is_some() != self.demand.is_some();
        self.demand = demand;
        if demand.is_none() {
            self.asked = None;
            if news && self.is_bound() {
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
            Word::Grant(share) if from == self.holder && self.is_bound() => self.keep(now, share),
            Word::Rule(rule) if self.members.contains_key(&from) => {
                self.heard_rules.insert(from, rule);
                self.go_by_rule(now);
            }
            _ => {}
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        let Some(demand) = self.demand.filter(|_| self.is_bound()) else { return };
        if self.good_until <= now {
            let half = |urgency, part: u64| {
                let most = self.most(urgency);
                (part / 2).max(most / SOLITARY / 3).min(most / 2)
            };
            let halves = self.share.unwrap_or_default().each(half);
            self.good_until = now + TERM;
            self.set(halves);
        }
        if self.asked.is_none_or(|asked| asked + ASK <= now) {
            self.asked = Some(now);
            self.say(now, demand);
        }
    }

    /// What this node's clock says that the site goes by.
    pub fn set_rule(&mut self, now: Instant, rule: Rule) {
        if rule == self.own_rule {
            return;
        }
        self.own_rule = rule;
        self.tell_rule();
        self.go_by_rule(now);
    }

    // ---- moving on -------------------------------------------------------------------

    /// The rule may be another one: that holds at once, for what is under way too.
    fn go_by_rule(&mut self, now: Instant) {
        let caps = self.rule().caps;
        let before = std::mem::replace(&mut self.keeps, caps);
        if before == caps {
            return;
        }
        if self.limit().is_none() && before.is_some() != caps.is_some() {
            self.start_alone(now);
            self.tick(now);
        } else {
            if let Some(share) = self.share {
                let within = share.each(|urgency, part| part.min(self.most(urgency)));
                self.set(within);
            }
            self.share_again(now);
            self.asked = None;
            self.tick(now);
        }
    }

    fn tell_rule(&mut self) {
        if self.holder == self.me {
            let rule = Word::Rule(self.own_rule);
            self.acts.extend(self.members.keys().map(|&to| Act::Say { to, word: rule }));
        }
    }

    fn look_for_holder(&mut self, now: Instant, limit_before: Option<u64>) {
        let weight = |member: &Member| u32::from(member.may_hold);
        let all = self.members.iter().map(|(node, member)| (*node, weight(member)));
        let ranked = rank::rank(KEY, all.chain([(self.me, weight(&self.mine))]));
        let another = ranked[0] != self.holder;
        if another {
            self.holder = ranked[0];
            self.since = now;
            self.forget_what_is_old(now);
            self.asked = None;
            self.tell_rule();
            if self.holder != self.me && self.demand.is_none() && self.is_bound() {
                self.say(now, Rates::default()); // it listens until it has heard all
            }
        }
        self.go_by_rule(now);
        if self.limit() != limit_before {
            self.start_alone(now);
        }
        self.tick(now);
    }

    /// The limit is new: until the holder has spoken, a small part of it.
    fn start_alone(&mut self, now: Instant) {
        self.asked = None;
        if !self.is_bound() {
            self.share = None;
            return self.acts.push_back(Act::Keep(None));
        }
        self.good_until = now + TERM;
        let parts = if self.members.is_empty() { 1 } else { SOLITARY };
        let all = self.bounds().total / parts;
        let little = all / BACKGROUND;
        let share = Rates { urgent: little, foreground: all - 2 * little, background: little };
        let within = share.each(|urgency, part| part.min(self.most(urgency) / parts));
        self.set(within);
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
        self.good_until = now + TERM;
        let within = share.each(|urgency, part| part.min(self.most(urgency)));
        self.set(within);
    }

    fn set(&mut self, share: Rates) {
        if self.share != Some(share) {
            self.share = Some(share);
            self.acts.push_back(Act::Keep(Some(share)));
        }
    }
}

#[cfg(test)]
mod tests;
