//! What the site's schedule and what was ordered over it say, as this node knows them.
//!
//! Every node works this out from the site's orders and its own clock; the word of the node that
//! holds the budget decides ([`crate::core::budget`]), and comes back here as what the site goes by.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::Node;
use super::month::Used;
use crate::core::budget::{Caps, Rule, UNLIMITED};
use crate::core::flight::Urgency;
use crate::core::orders::{Orders, WanSchedule, Whole};
use crate::core::window::{Cap, Hold, Holds, Plan, Schedule};

/// A clock that jumps is noticed within so long.
const LOOK: Duration = Duration::from_secs(1);
/// Who is told to come again later is told so within these bounds, in seconds.
const RETRY: std::ops::RangeInclusive<u64> = 1..=24 * 3600;
/// When nobody knows when it opens: an admin may open it at any time.
const UNKNOWN: u64 = 600;

/// What this node knows of the site's windows.
#[derive(Debug, Default)]
pub(super) struct Windows {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    schedule: Option<Arc<Schedule>>,
    unreadable: Option<String>,
    hold: Option<Hold>,
    /// What the month has used, as this node has added up itself.
    added_up: Option<Used>,
    /// By the word of the holder.
    goes_by: Rule,
    is_holder: bool,
}

/// The WAN is closed for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// What it is told.
    pub text: String,
    /// After so many seconds it may try again.
    pub retry_after_s: u64,
}

impl State {
    fn plan(&self) -> Plan<'_> {
        let (own, heard) = (self.added_up.map(|used| used.bytes), self.goes_by.month_used);
        let month_used = if self.is_holder { own.or(heard) } else { heard };
        Plan { schedule: self.schedule.as_deref(), hold: self.hold, month_used }
    }
}

impl Windows {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what admins have ordered.
    pub(super) fn read(&self, orders: &Orders) {
        let written: Option<WanSchedule> = orders.get(&Whole);
        let read = written.map(|written| written.toml.parse::<Schedule>()).transpose();
        let hold: Option<Hold> = orders.get(&Whole);
        let mut state = self.state();
        let (schedule, unreadable) = match read {
            Ok(schedule) => (schedule, None),
            // It was checked where it was given, by a version that knows more.
            Err(error) => (None, Some(error.to_string())),
        };
        if state.schedule.as_deref() != schedule.as_ref() {
            (state.added_up, state.goes_by.month_used) = (None, None);
            state.schedule = schedule.map(Arc::new);
        }
        state.unreadable = unreadable;
        state.hold = hold;
    }

    /// The site's schedule.
    pub(super) fn schedule(&self) -> Option<Arc<Schedule>> {
        self.state().schedule.clone()
    }

    /// Why the schedule means nothing to this version.
    pub(super) fn unreadable(&self) -> Option<String> {
        self.state().unreadable.clone()
    }

    /// What holds at an instant by this node's clock.
    pub(super) fn holds(&self, now: Timestamp) -> Option<Holds> {
        self.state().plan().at(now)
    }

    /// What the budget has to know, and how soon it is to ask again.
    pub(super) fn rule(&self, now: Timestamp) -> (Rule, Option<Duration>) {
        let state = self.state();
        let Some(holds) = state.plan().at(now) else { return (Rule::default(), None) };
        let until = holds.until.and_then(|until| Duration::try_from(until.duration_since(now)).ok());
        // Not a moment too early: the next look would find what holds already.
        let look = until.map_or(LOOK, |until| (until + Duration::from_millis(1)).min(LOOK));
        let rate = |cap: Cap| match cap {
            Cap::Closed => 0,
            Cap::Rate(rate) => rate.0.clamp(1, UNLIMITED),
            Cap::Unlimited => UNLIMITED,
        };
        let caps = Caps { foreground: rate(holds.rule.foreground), background: rate(holds.rule.background) };
        (Rule { caps: Some(caps), month_used: state.plan().month_used }, Some(look))
    }

    /// What the site goes by, as the budget has it.
    pub(super) fn go_by(&self, rule: Rule, is_holder: bool) {
        let mut state = self.state();
        (state.goes_by, state.is_holder) = (rule, is_holder);
    }

    /// What the site goes by, and whether this node says so.
    pub(super) fn goes_by(&self) -> (Rule, bool) {
        let state = self.state();
        (state.goes_by, state.is_holder)
    }

    /// What the site has used of its month, in bytes, if that is known.
    pub(super) fn month_used(&self) -> Option<u64> {
        self.state().plan().month_used
    }

    /// The same, as this node has added up itself.
    pub(super) fn added_up(&self) -> Option<Used> {
        self.state().added_up
    }

    /// Takes note of what the site has used of its month.
    pub(super) fn set_added_up(&self, used: Used) {
        self.state().added_up = Some(used);
    }

    /// What a client is told for whom the WAN is closed; `None` if it is open.
    pub(super) fn closed(&self, now: Timestamp, urgency: Urgency) -> Option<Closed> {
        let state = self.state();
        let shut = state.goes_by.caps.is_some_and(|caps| caps.of(urgency) == 0);
        if !shut {
            return None;
        }
        let (plan, background) = (state.plan(), urgency == Urgency::Background);
        let opens = plan.opens(now, background);
        let wait = opens.map_or(UNKNOWN, |at| at.duration_since(now).as_secs().unsigned_abs() + 1);
        let holds = plan.at(now).filter(|holds| holds.rule.of(background).is_closed());
        let text = holds.map_or_else(
            || {
                "the WAN is closed by the clock of the node that shares it out, and open by this one's: set \
                 their clocks; what the site holds is served; --urgent overrides"
                    .to_owned()
            },
            |holds| holds.refusal(now, background, opens),
        );
        Some(Closed { text, retry_after_s: wait.clamp(*RETRY.start(), *RETRY.end()) })
    }
}

/// Follows the orders as they change.
pub(super) async fn keep(node: Node) {
    let mut changes = node.orders().changes();
    loop {
        node.inner.windows.read(&node.orders().now());
        if let Some(why) = node.inner.windows.unreadable() {
            tracing::error!(why, "this version cannot read the site's WAN schedule, and does not keep to it");
        }
        node.inner.allowance.look_again();
        if changes.changed().await.is_err() {
            return;
        }
    }
}

impl Node {
    /// Why the WAN is closed for such a client; `None` if it is open.
    pub fn wan_closed(&self, urgency: Urgency) -> Option<Closed> {
        self.inner.windows.closed(Timestamp::now(), urgency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::id::NodeId;
    use crate::core::window::Kind;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn orders_decide_and_a_jump_of_the_clock_is_right_at_once() {
        let (windows, mut orders) = (Windows::default(), Orders::default());
        let me = NodeId::from_bytes([1; 32]);
        assert_eq!(windows.rule(at("2026-07-06T12:00:00Z")), (Rule::default(), None));
        let toml = "zone = 'Europe/Lisbon'\n[[window]]\nname = 'office hours'\nhours = '08:00-18:00'\n\
                    foreground = 'none'"
            .to_owned();
        orders.give(1, me, "ann", &Whole, Some(&WanSchedule { toml })).expect("room");
        windows.read(&orders);
        for (now, foreground) in [("11:00", 0), ("18:00", UNLIMITED), ("11:00", 0), ("16:59", 0)] {
            let (rule, look) = windows.rule(at(&format!("2026-07-06T{now}:00Z")));
            assert_eq!(rule.caps.map(|caps| caps.foreground), Some(foreground), "{now}");
            assert!(look.is_some_and(|look| look <= LOOK));
        }
        let now = at("2026-07-06T12:00:00Z");
        assert_eq!(windows.closed(now, Urgency::Foreground), None, "the holder has not said so");
        windows.go_by(windows.rule(now).0, true);
        let closed = windows.closed(now, Urgency::Foreground).expect("closed");
        assert_eq!(
            closed.text,
            "the WAN is closed until 18:00 Europe/Lisbon (window \"office hours\"); what the site holds is \
             served; --urgent overrides"
        );
        assert_eq!(closed.retry_after_s, 5 * 3600 + 1);
        assert_eq!(windows.closed(now, Urgency::Urgent), None);
        let hold = Hold { until: at("2026-07-06T13:00:00Z"), kind: Kind::OpenForeground };
        orders.give(2, me, "ann", &Whole, Some(&hold)).expect("room");
        windows.read(&orders);
        let caps = windows.rule(now).0.caps.expect("held");
        assert_eq!((caps.foreground, caps.background), (UNLIMITED, 0));
    }
}
