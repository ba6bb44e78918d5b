//! What holds, all things considered: the schedule, what was ordered over it, and the month.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::rule::{Cap, Rule};
use super::{Schedule, Then};

/// Within a day a time needs no date.
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// Changes to look past for one that opens: a week has some, and a month stands over several.
const LOOK_AHEAD: usize = 1000;

/// An order that stands over the schedule for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Until then.
    pub until: Timestamp,
    /// What it is.
    pub kind: Kind,
}

/// What an admin may order over the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Clients that wait are bound by nothing but the WAN limit.
    OpenForeground,
    /// Nobody is.
    OpenAll,
    /// Nothing crosses but what is urgent.
    Closed,
}

/// All that decides what holds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plan<'a> {
    /// The site's schedule.
    pub schedule: Option<&'a Schedule>,
    /// What was ordered over it.
    pub hold: Option<Hold>,
    /// What the month has used, as far as that is known, in bytes.
    pub month_used: Option<u64>,
}

/// What holds now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holds {
    /// How much may cross.
    pub rule: Rule,
    /// The window of the schedule; `None`: outside of all.
    pub window: Option<String>,
    /// The order over the schedule, if one holds.
    pub hold: Option<Hold>,
    /// By the schedule alone.
    pub scheduled: Rule,
    /// The month is used up, and that closes what it is to close.
    pub month_over: bool,
    /// When something else may hold; `None`: not by itself.
    pub until: Option<Timestamp>,
    /// The zone in which people think of it.
    pub zone: TimeZone,
    /// Its name.
    pub zone_name: String,
}

impl Plan<'_> {
    /// What holds at an instant; `None`: nobody has ordered anything, and nothing is bound.
    pub fn at(&self, now: Timestamp) -> Option<Holds> {
        let hold = self.hold.filter(|hold| now < hold.until);
        if self.schedule.is_none() && hold.is_none() {
            return None;
        }
        let moment = self.schedule.map(|schedule| schedule.at(now));
        let scheduled = moment.map_or(Rule::OPEN, |moment| moment.rule);
        let mut rule = scheduled;
        let month_over = self.month_closes(&mut rule);
        match hold.map(|hold| hold.kind) {
            Some(Kind::OpenForeground) => rule.foreground = Cap::Unlimited,
            Some(Kind::OpenAll) => rule = Rule::OPEN,
            Some(Kind::Closed) => rule = Rule::CLOSED,
            None => {}
        }
        let changes = [moment.and_then(|moment| moment.until), hold.map(|hold| hold.until)];
        let month_ends = self.schedule.filter(|_| month_over).and_then(|it| it.next_month(now));
        Some(Holds {
            rule,
            window: moment.and_then(|moment| moment.window).map(str::to_owned),
            hold,
            scheduled,
            month_over,
            until: changes.into_iter().chain([month_ends]).flatten().min(),
            zone: self.schedule.map_or(TimeZone::UTC, |schedule| schedule.zone().clone()),
            zone_name: self.schedule.map_or("UTC", |schedule| schedule.zone_name()).to_owned(),
        })
    }

    /// When a kind that is closed now opens by itself; `None`: it is open, or nobody knows.
    pub fn opens(&self, now: Timestamp, background: bool) -> Option<Timestamp> {
        let month_of = |at| self.schedule.and_then(|schedule| schedule.month_began(at));
        let (mut plan, mut at) = (*self, now);
        for _ in 0..LOOK_AHEAD {
            let closed = plan.at(at).filter(|holds| holds.rule.of(background).is_closed());
            let Some(holds) = closed else { return (at > now).then_some(at) };
            at = holds.until?;
            if month_of(at) != month_of(now) {
                plan.month_used = None; // it begins anew
            }
        }
        None
    }

    /// Whether the month closes something that the schedule leaves open.
    fn month_closes(&self, rule: &mut Rule) -> bool {
        let (Some(month), Some(used)) = (self.schedule.and_then(Schedule::month), self.month_used) else {
            return false;
        };
        let over = month.is_over(used);
        match month.then {
            Then::Warn => return false,
            Then::Background if over => rule.background = Cap::Closed,
            Then::All if over => *rule = Rule::CLOSED,
            Then::Background | Then::All => {}
        }
        over
    }
}

impl Schedule {
    /// When the month after this one begins.
    fn next_month(&self, now: Timestamp) -> Option<Timestamp> {
        let began = self.month_began(now)?;
        // The 40th day is in the next month, whichever it is.
        let later = began.checked_add(SignedDuration::from_hours(24 * 40)).ok()?;
        self.month_began(later)
    }
}

impl Holds {
    /// In words, for a client that may not have what it wants: what is closed, until when, and what
    /// helps. `opens` as [`Plan::opens`] has it.
    pub fn refusal(&self, now: Timestamp, background: bool, opens: Option<Timestamp>) -> String {
        let whom = if background && !self.rule.foreground.is_closed() { " for the background" } else { "" };
        let until = opens.map_or_else(String::new, |at| format!(" until {}", self.clock(now, at)));
        let why = self.why(background);
        format!("the WAN is closed{whom}{until} ({why}); what the site holds is served; --urgent overrides")
    }

    /// A time as the site's clock shows it, with its date unless that is clear.
    pub fn clock(&self, now: Timestamp, at: Timestamp) -> String {
        let form = if at.duration_since(now) < DAY { "%H:%M" } else { "%a %d %b %H:%M" };
        format!("{} {}", at.to_zoned(self.zone.clone()).strftime(form), self.zone_name)
    }

    /// What decides at the moment, in words.
    pub fn reason(&self) -> String {
        match (self.hold, &self.window) {
            (Some(_), _) => "by an admin's order".to_owned(),
            _ if self.month_over => "the month's bytes are used up".to_owned(),
            (_, Some(window)) => format!("window \"{window}\""),
            (_, None) => "outside of all windows".to_owned(),
        }
    }

    /// Why one kind is as it is, in words.
    pub fn why(&self, background: bool) -> String {
        match (self.hold, &self.window) {
            (Some(Hold { kind: Kind::Closed, .. }), _) => "by an admin's order".to_owned(),
            (Some(_), _) if !background => "by an admin's order".to_owned(),
            _ if self.month_over && !self.scheduled.of(background).is_closed() => {
                "the month's bytes are used up".to_owned()
            }
            (_, Some(window)) => format!("window \"{window}\""),
            (_, None) => "outside of all windows".to_owned(),
        }
    }
}
