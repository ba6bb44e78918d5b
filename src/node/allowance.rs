//! This node's part in the site's WAN limit: what it uses, what it could use, and what it may.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::throttle::Throttle;
use crate::core::bitrate::Rate;
use crate::core::budget::{Act, Budget, Rates, Word};
use crate::core::id::NodeId;
use crate::core::yielding::Cap;
use crate::net::{Hello, Net};

/// Of a thousand bytes that a router counts, so many are content: the rest are Ethernet, IP and TCP
/// headers, requests and TLS records.
const CONTENT: u64 = 950;
/// What is used may grow by this part before its next measurement, and by so many bytes a second.
const GROWTH: u64 = 4;
const START: u64 = 64 << 10;
/// What the system may read ahead, as the time that it takes at the node's share: longer than a round
/// trip, or the share could not be used.
const AHEAD: Duration = Duration::from_millis(250);
const LEAST_WINDOW: usize = 16 << 10;
const MOST_WINDOW: usize = 4 << 20;
/// The same of what gives way: a few packets.
const SMALL_WINDOW: usize = 4 << 10;
/// Shorter times say little about a rate.
const SHORTEST: Duration = Duration::from_millis(100);

/// One kind of pulling: for clients that wait, or in the background.
#[derive(Debug, Default)]
struct Kind {
    throttle: Throttle,
    pulling: AtomicUsize,
}

/// The WAN of this node, as it is pulled over.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    foreground: Kind,
    background: Kind,
    bounds: Mutex<Bounds>,
    /// Somebody has begun to pull.
    begun: Notify,
    /// Likewise, in the background.
    begun_in_background: Notify,
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
    background: bool,
}

impl Allowance {
    fn kind(&self, background: bool) -> &Kind {
        if background { &self.background } else { &self.foreground }
    }

    /// Enters something that pulls.
    pub(super) fn begin(self: &Arc<Self>, background: bool) -> Pulling {
        if self.kind(background).pulling.fetch_add(1, Ordering::Relaxed) == 0 {
            self.begun.notify_one();
            if background {
                self.begun_in_background.notify_one();
            }
        }
        Pulling { allowance: self.clone(), background }
    }

    /// Waits until somebody begins to pull.
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

    /// What has come in the background, in bytes.
    pub(super) fn in_background(&self) -> u64 {
        self.background.throttle.sum()
    }

    /// The background keeps to this from now on; it may be slow because of it until then.
    pub(super) fn give_way(&self, cap: Option<Cap>, until: Option<Instant>) {
        self.bound(|bounds| (bounds.cap, bounds.gives_way_until) = (cap, until));
    }

    fn set(&self, rates: Option<Rates>) {
        self.foreground.throttle.set(rates.map(|rates| Rate(rates.foreground)));
        self.bound(|bounds| bounds.share = rates.map(|rates| rates.background));
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
    pub(super) fn is_for(&mut self, background: bool) {
        if background != self.background {
            *self = self.allowance.begin(background);
        }
    }

    /// How far one of these may be read ahead, in bytes; 0: as far as the system likes.
    pub(super) fn window(&self) -> usize {
        let kind = self.allowance.kind(self.background);
        let pulling = kind.pulling.load(Ordering::Relaxed).max(1) as f64;
        let ahead = |rate: f64| (rate * AHEAD.as_secs_f64() / pulling) as usize;
        let window = kind.throttle.rate().map_or(0, |rate| ahead(rate).clamp(LEAST_WINDOW, MOST_WINDOW));
        match self.allowance.bounds().cap.filter(|_| self.background) {
            Some(cap) => {
                ((cap.window as f64 / pulling) as usize).clamp(SMALL_WINDOW, window.max(SMALL_WINDOW))
            }
            None => window,
        }
    }

    /// Whether it is slow because it gives way to others on the link.
    pub(super) fn gives_way(&self) -> bool {
        let until = self.allowance.bounds().gives_way_until;
        self.background && until.is_some_and(|until| Instant::now() < until)
    }

    /// What its bytes have to keep to.
    pub(super) fn throttle(&self) -> &Throttle {
        &self.allowance.kind(self.background).throttle
    }
}

impl Drop for Pulling {
    fn drop(&mut self) {
        self.allowance.kind(self.background).pulling.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What `--wan-limit` allows of content, in bytes per second.
fn content(limit: u64) -> u64 {
    (limit.saturating_mul(CONTENT) / 1000).max(1)
}

/// The driver's side: tells the budget what is used, and keeps to what it says.
#[derive(Debug)]
pub(super) struct Keeper {
    budget: Budget,
    allowance: Arc<Allowance>,
    net: Net,
    measured: Instant,
    last: Rates,
}

impl Keeper {
    pub(super) fn new(net: Net, allowance: Arc<Allowance>, limit: Option<Rate>) -> Self {
        let now = Instant::now();
        let budget = Budget::new(now, net.me(), limit.map(|limit| content(limit.0)));
        let mut keeper = Self { budget, allowance, net, measured: now, last: Rates::default() };
        keeper.act();
        keeper
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.budget.deadline()
    }

    /// Only a hub holds the budget: all are connected to it.
    pub(super) fn joined(&mut self, node: NodeId, hello: &Hello, hub: bool) {
        let limit = hello.wan_limit.map(|limit| content(limit.0));
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
        self.act();
    }

    /// Time has passed, or somebody has begun to pull.
    pub(super) fn look(&mut self) {
        let now = Instant::now();
        let demand = self.demand(now);
        self.budget.demand(now, demand);
        self.budget.tick(now);
        self.act();
    }

    /// What could be used: all, by who has had to wait; else somewhat more than what is used.
    fn demand(&mut self, now: Instant) -> Option<Rates> {
        let limit = self.budget.limit()?;
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
