//! WAN windows: when a site may take how much from the WAN.
//!
//! A [`Schedule`] is read from TOML ([`read`]) and answers what holds at an instant, and until when.
//!
//! # Daylight saving
//! The clock on the wall of the site decides, and nothing else: a window holds whenever that clock
//! shows a time within its hours. Hours that a clock skips in spring do not happen, so a window
//! within them does not open that day; hours that it shows twice in autumn happen twice, and a window
//! within them opens twice.

mod hours;
mod month;
mod plan;
mod read;
mod rule;
mod week;

use std::collections::BTreeSet;

use jiff::civil::{self, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan};

pub use month::{Month, Then};
pub use plan::{Hold, Holds, Kind, Plan};
pub use read::{LONGEST, ScheduleError};
pub use rule::{Cap, Rule};
use week::Span;

/// Within so many days a schedule repeats itself, changes of the clock included.
const REPEATS: i64 = 16;

/// A window, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Its name.
    pub name: String,
    /// What holds in it.
    pub rule: Rule,
    /// When it opens, in minutes of the week.
    spans: Vec<Span>,
}

/// What a site may take from the WAN, by the hours of its week.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    zone: TimeZone,
    zone_name: String,
    windows: Vec<Window>,
    outside: Rule,
    month: Option<Month>,
}

/// What holds at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment<'a> {
    /// How much.
    pub rule: Rule,
    /// In which window; `None`: outside of all.
    pub window: Option<&'a str>,
    /// The next instant at which something else holds; `None`: never.
    pub until: Option<Timestamp>,
}

impl Schedule {
    /// The time zone's name.
    pub fn zone_name(&self) -> &str {
        &self.zone_name
    }

    /// The time zone.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The windows, as they were written.
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// What holds outside of them.
    pub fn outside(&self) -> Rule {
        self.outside
    }

    /// How much a month may take.
    pub fn month(&self) -> Option<&Month> {
        self.month.as_ref()
    }

    /// What holds at an instant, and until when.
    pub fn at(&self, now: Timestamp) -> Moment<'_> {
        let (window, rule) = self.rule_at(now);
        Moment { rule, window, until: self.next_change(now, (window, rule)) }
    }

    /// When the present month began, in the schedule's zone; `None` if it counts none.
    pub fn month_began(&self, now: Timestamp) -> Option<Timestamp> {
        let month = self.month.as_ref()?;
        let today = self.zone.to_datetime(now).date();
        let first = month.began(today);
        // Midnight may not exist; the day begins then when the clock has skipped it.
        self.zone.to_zoned(first.to_datetime(civil::Time::midnight())).ok().map(|zoned| zoned.timestamp())
    }

    fn rule_at(&self, at: Timestamp) -> (Option<&str>, Rule) {
        let minute = week::minute_of(self.zone.to_datetime(at));
        let open = self.windows.iter().find(|window| window.spans.iter().any(|span| span.contains(&minute)));
        open.map_or((None, self.outside), |window| (Some(window.name.as_str()), window.rule))
    }

    /// Something can change only when the clock shows the start or the end of a window, or is changed
    /// itself.
    fn next_change(&self, now: Timestamp, held: (Option<&str>, Rule)) -> Option<Timestamp> {
        if self.windows.is_empty() {
            return None;
        }
        let end = now.checked_add(SignedDuration::from_hours(24 * REPEATS)).ok()?;
        let mut instants: BTreeSet<Timestamp> = self.edges(now);
        let changes = self.zone.following(now).map(|change| change.timestamp());
        instants.extend(changes.take_while(|&at| at <= end).take(REPEATS as usize));
        instants.into_iter().find(|&at| at > now && self.rule_at(at) != held)
    }

    /// The instants at which the clock shows a start or an end, of the days to come.
    fn edges(&self, now: Timestamp) -> BTreeSet<Timestamp> {
        let edges: BTreeSet<u32> =
            self.windows.iter().flat_map(|window| &window.spans).flat_map(|it| [it.start, it.end]).collect();
        let today = self.zone.to_datetime(now).date();
        let mut instants = BTreeSet::new();
        for ahead in -1..REPEATS {
            let Ok(day) = today.checked_add(ahead.days()) else { continue };
            let start = week::minute_of(day.to_datetime(civil::Time::midnight()));
            for edge in edges.range(start..=start + week::DAY) {
                let since = i64::from(edge - start).minutes();
                let Ok(shown) = day.to_datetime(civil::Time::midnight()).checked_add(since) else { continue };
                instants.extend(self.shown(shown));
            }
        }
        instants
    }

    /// When the clock shows this: once, twice or never.
    fn shown(&self, time: DateTime) -> impl Iterator<Item = Timestamp> {
        let (first, second) = match self.zone.to_ambiguous_timestamp(time).offset() {
            AmbiguousOffset::Unambiguous { offset } => (Some(offset), None),
            AmbiguousOffset::Fold { before, after } => (Some(before), Some(after)),
            // The change itself is looked at.
            AmbiguousOffset::Gap { .. } => (None, None),
        };
        first.into_iter().chain(second).filter_map(move |offset| offset.to_timestamp(time).ok())
    }
}

#[cfg(test)]
mod tests;
