//! This node's part in the site's WAN limit: what it uses, what it could use, and what it may.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Notify;

use super::throttle::Throttle;
use super::windows::Windows;
use crate::core::bitrate::Rate;
use crate::core::budget::{Act, Budget, Rates, UNLIMITED, Word};
use crate::core::flight::Urgency;
use crate::core::id::NodeId;
use crate::core::yielding::Cap;
use crate::net::{Hello, Net};

/// What is used may grow by this part before its next measurement, and by so many bytes a second.
const GROWTH: u64 = 4;
const START: u64 = 64 << 10;
/// What the system may read ahead, as the time that it takes at the node's share: two round trips and
/// this, or the share could not be used after a moment's delay; and not much more, since it crosses at once when
/// a run begins.
const AHEAD: Duration = Duration::from_millis(20);
/// While the round trip is not known, and at least and at most.
const AHEAD_UNKNOWN: Duration = Duration::from_millis(250);
const LEAST_AHEAD: Duration = Duration::from_millis(60);
const MOST_AHEAD: Duration = Duration::from_secs(1);
const LEAST_WINDOW: usize = 16 << 10;
const MOST_WINDOW: usize = 4 << 20;
/// The same of what gives way: a few packets.
const SMALL_WINDOW: usize = 4 << 10;
/// Shorter times say little about a rate.
const SHORTEST: Duration = Duration::from_millis(100);
/// A rate that no machine has is none: a share of what is unlimited.
const BOUNDLESS: u64 = 1 << 37;

/// One kind of pulling, by its urgency. Its bytes are those that a router counts.
#[derive(Debug, Default)]
struct Kind {
    throttle: Throttle,
    pulling: AtomicUsize,
}

/// The WAN of this node, as it is pulled over.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    urgent: Kind,
    foreground: Kind,
    background: Kind,
    bounds: Mutex<Bounds>,
    /// Somebody has begun to pull, or the site goes by another schedule.
    begun: Notify,
    /// Somebody has begun to pull in the background.
    begun_in_background: Notify,
    /// The site's limit and the node that shares it out, for people.
    known: Mutex<(Option<u64>, Option<NodeId>)>,
}

/// What bounds the background: the lower holds.
#[derive(Debug, Default)]
struct Bounds {
    /// Its part of the site's limit, in bytes per second.
    share: Option<u64>,
    /// What it keeps to, to give way to others on the link.
    cap: Option<Cap>,
    /// Until when it may be slow because of that.
    gives_way_until: Option<Instant>,
}

/// Something that pulls; dropped when it has ended.
#[derive(Debug)]
pub(super) struct Pulling {
    allowance: Arc<Allowance>,
    urgency: Urgency,
}

impl Allowance {
    fn kind(&self, urgency: Urgency) -> &Kind {
        match urgency {
            Urgency::Background => &self.background,
            Urgency::Foreground => &self.foreground,
            Urgency::Urgent => &self.urgent,
        }
    }

    /// Enters something that pulls.
    pub(super) fn begin(self: &Arc<Self>, urgency: Urgency) -> Pulling {
        if self.kind(urgency).pulling.fetch_add(1, Ordering::Relaxed) == 0 {
            self.begun.notify_one();
            if urgency == Urgency::Background {
                self.begun_in_background.notify_one();
            }
        }
        Pulling { allowance: self.clone(), urgency }
    }

    /// What the site goes by may have changed.
    pub(super) fn look_again(&self) {
        self.begun.notify_one();
    }

    /// Waits until somebody begins to pull, or something changes.
    pub(super) async fn begun(&self) {
        self.begun.notified().await;
    }

    /// Waits until somebody begins to pull in the background.
    pub(super) async fn begun_in_background(&self) {
        self.begun_in_background.notified().await;
    }

    /// Whether somebody pulls in the background.
    pub(super) fn is_in_background(&self) -> bool {
        self.background.pulling.load(Ordering::Relaxed) > 0
    }

    /// Whether nothing may be pulled in the background now.
    pub(super) fn is_closed_to_background(&self) -> bool {
        self.background.throttle.is_closed()
    }

    /// What has come in the background, in bytes.
    pub(super) fn in_background(&self) -> u64 {
        self.background.throttle.passed()
    }

    /// The background keeps to this from now on; it may be slow because of it until then.
    pub(super) fn give_way(&self, cap: Option<Cap>, until: Option<Instant>) {
        self.bound(|bounds| (bounds.cap, bounds.gives_way_until) = (cap, until));
    }

    /// The lowest limit that any node has set, in bytes per second.
    pub(super) fn limit(&self) -> Option<u64> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// The node that shares it out.
    pub(super) fn holder(&self) -> Option<NodeId> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Bytes that this node has pulled over the WAN since its start.
    pub(super) fn crossed(&self) -> u64 {
        Urgency::ALL.iter().map(|&urgency| self.kind(urgency).throttle.passed()).sum()
    }

    fn set(&self, rates: Option<Rates>) {
        let share = |urgency| rates.map(|rates| rates.of(urgency)).filter(|rate| *rate < BOUNDLESS);
        for urgency in [Urgency::Foreground, Urgency::Urgent] {
            self.kind(urgency).throttle.set(share(urgency).map(Rate));
        }
        self.bound(|bounds| bounds.share = share(Urgency::Background));
    }

    fn bounds(&self) -> MutexGuard<'_, Bounds> {
        self.bounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bound(&self, change: impl FnOnce(&mut Bounds)) {
        let mut bounds = self.bounds();
        change(&mut bounds);
        let rate = bounds.share.into_iter().chain(bounds.cap.map(|cap| cap.rate)).min();
        self.background.throttle.set(rate.map(Rate));
    }
}

impl Pulling {
    /// What is pulled may become urgent while it is, or stop being so.
    /// True if it has.
    pub(super) fn is_for(&mut self, urgency: Urgency) -> bool {
        let changed = urgency != self.urgency;
        if changed {
            *self = self.allowance.begin(urgency);
        }
        changed
    }

    /// How far one of these may be read ahead, in bytes, over a WAN of this round trip (zero if it is not
    /// known); 0: as far as the system likes.
    pub(super) fn window(&self, round_trip: Duration) -> usize {
        let time = match round_trip {
            Duration::ZERO => AHEAD_UNKNOWN,
            known => (2 * known + AHEAD).clamp(LEAST_AHEAD, MOST_AHEAD),
        };
        let kind = self.allowance.kind(self.urgency);
        let pulling = kind.pulling.load(Ordering::Relaxed).max(1) as f64;
        let ahead = |rate: f64| (rate * time.as_secs_f64() / pulling) as usize;
        let window = kind.throttle.rate().map_or(0, |rate| ahead(rate).clamp(LEAST_WINDOW, MOST_WINDOW));
        match self.allowance.bounds().cap.filter(|_| self.is_background()) {
            Some(cap) => {
                ((cap.window as f64 / pulling) as usize).clamp(SMALL_WINDOW, window.max(SMALL_WINDOW))
            }
            None => window,
        }
    }

    fn is_background(&self) -> bool {
        self.urgency == Urgency::Background
    }

    /// Whether it is slow because it gives way to others on the link.
    pub(super) fn gives_way(&self) -> bool {
        let until = self.allowance.bounds().gives_way_until;
        self.is_background() && until.is_some_and(|until| Instant::now() < until)
    }

    /// What its bytes have to keep to.
    pub(super) fn throttle(&self) -> &Throttle {
        &self.allowance.kind(self.urgency).throttle
    }
}

impl Drop for Pulling {
    fn drop(&mut self) {
        self.allowance.kind(self.urgency).pulling.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The driver's side: tells the budget what is used, and keeps to what it says.
#[derive(Debug)]
pub(super) struct Keeper {
    budget: Budget,
    allowance: Arc<Allowance>,
    net: Net,
    windows: Arc<Windows>,
    /// When to look at the schedule again.
    next: Option<Instant>,
    measured: Instant,
    last: Rates,
}

impl Keeper {
    pub(super) fn new(
        net: Net,
        allowance: Arc<Allowance>,
        windows: Arc<Windows>,
        limit: Option<Rate>,
    ) -> Self {
        let now = Instant::now();
        let budget = Budget::new(now, net.me(), limit.map(|limit| limit.0));
        let last = Rates::default();
        let mut keeper = Self { budget, allowance, net, windows, next: None, measured: now, last };
        keeper.act();
        keeper
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.budget.deadline(), self.next].into_iter().flatten().min()
    }

    /// Only a hub holds the budget: all are connected to it.
    pub(super) fn joined(&mut self, node: NodeId, hello: &Hello, hub: bool) {
        let limit = hello.wan_limit.map(|limit| limit.0);
        self.budget.joined(Instant::now(), node, limit, hub && hello.weight > 0);
        self.look(); // it may have brought a limit, and something may be pulled already
    }

    /// Whether this node is a hub.
    pub(super) fn is_hub(&mut self, hub: bool) {
        self.budget.may_hold(Instant::now(), hub);
        self.look();
    }

    pub(super) fn left(&mut self, node: NodeId) {
        self.budget.left(Instant::now(), node);
        self.look();
    }

    pub(super) fn hear(&mut self, from: NodeId, word: Word) {
        self.budget.hear(Instant::now(), from, word);
        self.tell_windows();
        self.act();
    }

    /// Time has passed, or somebody has begun to pull.
    pub(super) fn look(&mut self) {
        let now = Instant::now();
        let (rule, again) = self.windows.rule(Timestamp::now());
        self.next = again.map(|again| now + again);
        self.budget.set_rule(now, rule);
        self.tell_windows();
        let demand = self.demand(now);
        self.budget.demand(now, demand);
        self.budget.tick(now);
        self.act();
    }

    fn tell_windows(&self) {
        let holder = self.budget.holder();
        self.windows.go_by(self.budget.rule(), holder == self.net.me());
        let mut known = self.allowance.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known = (self.budget.limit(), Some(holder));
    }

    /// What could be used: all, by who has had to wait; else somewhat more than what is used.
    fn demand(&mut self, now: Instant) -> Option<Rates> {
        self.budget.is_bound().then_some(())?;
        let limit = self.budget.limit().unwrap_or(UNLIMITED);
        let time = now.saturating_duration_since(self.measured);
        let long = time >= SHORTEST;
        let of = |kind: &Kind, last: u64| {
            if kind.pulling.load(Ordering::Relaxed) == 0 {
                return 0;
            }
            if last == 0 {
                return limit; // it has just begun, and nothing is known of it
            }
            if !long {
                return last;
            }
            let (bytes, waited) = kind.throttle.use_since();
            let rate = (bytes as f64 / time.as_secs_f64()) as u64;
            if waited { limit } else { (rate + rate / GROWTH + START).min(limit) }
        };
        // What gives way cannot use more, and leaves the rest to the others of the site.
        let cap = self.allowance.bounds().cap.map_or(u64::MAX, |cap| cap.rate);
        let demand = Rates {
            urgent: of(&self.allowance.urgent, self.last.urgent),
            foreground: of(&self.allowance.foreground, self.last.foreground),
            background: of(&self.allowance.background, self.last.background).min(cap),
        };
        if long {
            self.measured = now;
        }
        self.last = demand;
        (demand != Rates::default()).then_some(demand)
    }

    fn act(&mut self) {
        while let Some(act) = self.budget.poll() {
            match act {
                Act::Say { to, word } => self.net.say_budget(&to, &word),
                Act::Keep(rates) => self.allowance.set(rates),
            }
        }
    }
}
