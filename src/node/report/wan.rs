//! `GET /api/v1/wan`: what the site may take from the WAN, until when, and what comes next.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::Node;
use crate::core::bitrate::{Rate, Size};
use crate::core::budget::UNLIMITED;
use crate::core::flight::Urgency;
use crate::core::orders::{Order, WanSchedule, Whole};
use crate::core::window::{Hold, Holds, Kind, Schedule, Then};

/// A rate is measured over so long.
const MEASURE: Duration = Duration::from_millis(500);

/// What the site may take from the WAN. Rates in bytes per second: 0 is closed, nothing is unlimited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wan {
    /// In one line, for people.
    pub text: String,
    /// There is a schedule, or an order that stands in its place.
    pub bound: bool,
    /// The lowest `--wan-limit` of all nodes.
    pub limit: Option<u64>,
    /// The most for clients that wait, background included.
    pub foreground: Option<u64>,
    /// Of it, the most for the background.
    pub background: Option<u64>,
    /// The window that holds; none outside of all.
    pub window: Option<String>,
    /// The site's time zone.
    pub zone: Option<String>,
    /// When something else holds, UTC.
    pub until: Option<String>,
    /// What holds then, in words.
    pub next: Option<String>,
    /// The order over the schedule, if one holds.
    pub order: Option<WanOrder>,
    /// The month's bytes, if the schedule counts them.
    pub month: Option<WanMonth>,
    /// What this node takes now, or all nodes that answer, where the site was asked.
    pub using: Option<u64>,
    /// The node whose clock decides.
    pub holder: String,
    /// Its clock and this node's disagree on what holds.
    pub clocks_differ: bool,
    /// The schedule, as its admin wrote it.
    pub schedule: Option<String>,
    /// Who gave it.
    pub by: Option<String>,
    /// Why this version cannot read it.
    pub unreadable: Option<String>,
}

/// An order that stands over the schedule for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WanOrder {
    /// What is open or closed.
    pub kind: Kind,
    /// Until then, UTC.
    pub until: String,
    /// Who gave it.
    pub by: String,
}

/// A month's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WanMonth {
    /// The most.
    pub bytes: u64,
    /// What has crossed, if that is known.
    pub used: Option<u64>,
    /// When it began, UTC.
    pub began: String,
    /// The highest share that is reached of those to be warned of, in percent.
    pub reached: Option<u32>,
    /// What happens at its end.
    pub then: Then,
    /// It is used up.
    pub over: bool,
    /// Nodes that are away, and count with what they said last; known to the node that adds up.
    pub away: Option<usize>,
}

impl Node {
    /// What the site may take from the WAN, as this node knows it.
    pub fn wan(&self) -> Wan {
        let (now, windows) = (Timestamp::now(), &self.inner.windows);
        let (rule, is_holder) = windows.goes_by();
        let (holds, schedule) = (windows.holds(now), windows.schedule());
        let orders = self.orders().now();
        let (written, hold) = (orders.order::<WanSchedule>(&Whole), orders.order::<Hold>(&Whole));
        let cap = |urgency| rule.caps.map(|caps| caps.of(urgency)).filter(|rate| *rate < UNLIMITED);
        let mut wan = Wan {
            bound: rule.caps.is_some(),
            limit: self.inner.allowance.limit(),
            foreground: cap(Urgency::Foreground),
            background: cap(Urgency::Background),
            holder: self.inner.allowance.holder().map_or_else(String::new, |node| node.to_string()),
            clocks_differ: !is_holder && windows.rule(now).0.caps != rule.caps,
            schedule: orders.get::<WanSchedule>(&Whole).map(|written| written.toml),
            by: written.filter(|order| order.what.is_some()).map(|order| order.by.clone()),
            unreadable: windows.unreadable(),
            month: schedule.as_deref().and_then(|schedule| self.wan_month(now, schedule)),
            ..Wan::default()
        };
        if let Some(holds) = &holds {
            self.add_what_holds(&mut wan, now, holds, hold);
        }
        wan.text = text(&wan, holds.as_ref(), now);
        wan
    }

    fn add_what_holds(&self, wan: &mut Wan, now: Timestamp, holds: &Holds, order: Option<&Order>) {
        wan.window = holds.window.clone();
        wan.zone = Some(holds.zone_name.clone());
        wan.until = holds.until.map(|until| until.to_string());
        let then = holds.until.and_then(|until| Some((until, self.inner.windows.holds(until)?)));
        wan.next = then.map(|(until, then)| format!("from {}: {}", then.clock(now, until), described(&then)));
        if wan.next.is_none() && holds.hold.is_some() {
            wan.next = Some("then nothing is bound".into());
        }
        wan.order = holds.hold.map(|hold| WanOrder {
            kind: hold.kind,
            until: hold.until.to_string(),
            by: order.map_or_else(String::new, |order| order.by.clone()),
        });
    }

    fn wan_month(&self, now: Timestamp, schedule: &Schedule) -> Option<WanMonth> {
        let (month, windows) = (schedule.month()?, &self.inner.windows);
        let used = windows.month_used();
        Some(WanMonth {
            bytes: month.bytes.0,
            used,
            began: schedule.month_began(now)?.to_string(),
            reached: used.and_then(|used| month.reached(used)),
            then: month.then,
            over: used.is_some_and(|used| month.is_over(used)),
            away: windows.added_up().filter(|_| windows.goes_by().1).map(|used| used.away),
        })
    }

    /// The same, with what all nodes that answer take now.
    pub async fn wan_of_site(&self) -> Wan {
        let (own, others) = tokio::join!(self.own_wan_rate(), self.wan_rates());
        let using = others.iter().copied().fold(own, u64::saturating_add);
        Wan { using: Some(using), ..self.wan() }
    }

    /// Bytes per second that this node takes from the WAN, measured now.
    pub(in crate::node) async fn own_wan_rate(&self) -> u64 {
        let before = self.inner.allowance.crossed();
        tokio::time::sleep(MEASURE).await;
        let since = self.inner.allowance.crossed().saturating_sub(before);
        (since as f64 / MEASURE.as_secs_f64()) as u64
    }
}

/// What holds and why, in words.
fn described(holds: &Holds) -> String {
    format!("{} ({})", holds.rule, holds.reason())
}

fn text(wan: &Wan, holds: Option<&Holds>, now: Timestamp) -> String {
    let mut parts = Vec::new();
    match holds {
        Some(holds) => {
            let until = holds.until.map(|at| format!(" until {}", holds.clock(now, at)));
            parts.push(format!("{}{}", described(holds), until.unwrap_or_default()));
        }
        None if wan.limit.is_none() => parts.push("unlimited, no schedule".into()),
        None => parts.push("no schedule".into()),
    }
    parts.extend(wan.limit.map(|limit| format!("limit {}", Rate(limit))));
    if let Some(month) = &wan.month {
        let used = month.used.map_or_else(|| "not yet known".into(), |used| Size(used).to_string());
        parts.push(format!("month {used} of {}", Size(month.bytes)));
    }
    if wan.clocks_differ {
        parts.push("another node's clock decides, and differs from this one's".into());
    }
    parts.extend(wan.unreadable.as_ref().map(|why| format!("the schedule cannot be read: {why}")));
    parts.join("; ")
}
