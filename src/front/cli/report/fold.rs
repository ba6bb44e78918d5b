//! Rows as charts show them: the largest and all others, and days without a hole.

use std::collections::BTreeMap;

use jiff::civil::{Date, Weekday};
use jiff::{ToSpan, Unit};

use crate::core::ledger::Totals;
use crate::node::report::SavingsRow;

/// So many rows have a bar of their own.
pub(super) const TOP: usize = 20;
/// So many days, weeks or months are one chart at most; from 2 * 62 days on, days are added up to weeks, and
/// so on.
const MOST_BARS: usize = 62;
/// Books are kept for years, not for longer.
const MOST_DAYS: i32 = 200 * 366;

/// What one bar, and one line of the table below it, is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) name: String,
    pub(super) totals: Totals,
}

/// The rows that weigh most, and the sum of all others as one.
pub(super) fn top(
    rows: &[SavingsRow],
    name: impl Fn(&str) -> String,
    weight: impl Fn(&Totals) -> u64,
) -> Vec<Item> {
    let mut items: Vec<Item> =
        rows.iter().map(|row| Item { name: name(row.about.as_str()), totals: row.totals }).collect();
    items.sort_by_key(|item| std::cmp::Reverse((weight(&item.totals), item.totals.wan_wire)));
    // One other is shown as itself.
    if items.len() > TOP + 1 {
        let others = items.split_off(TOP);
        let mut totals = Totals::default();
        others.iter().for_each(|item| totals.add(&item.totals));
        items.push(Item { name: format!("all {} others", others.len()), totals });
    }
    items
}

/// How long a bar over time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Day,
    Week,
    Month,
}

impl Step {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// The first day of the step that this day is in.
    fn first(self, day: Date) -> Date {
        match self {
            Self::Day => day,
            Self::Week => {
                let back = i64::from(day.weekday().since(Weekday::Monday));
                day.checked_sub(back.days()).unwrap_or(day)
            }
            Self::Month => day.first_of_month(),
        }
    }

    fn next(self, day: Date) -> Option<Date> {
        let step = match self {
            Self::Day => 1.day(),
            Self::Week => 7.days(),
            Self::Month => 1.month(),
        };
        day.checked_add(step).ok()
    }
}

/// Bars over time, each named by its first day.
pub(super) struct Time {
    pub(super) step: Step,
    pub(super) items: Vec<(Date, Totals)>,
}

/// Adds up rows by day to a chart of the period, so that days on which nothing happened can be seen. `from`
/// and `to` (not in it any more) are times as the API writes them.
pub(super) fn over_time(rows: &[SavingsRow], from: &str, to: &str) -> Time {
    let day = |text: &str| text.get(..10)?.parse::<Date>().ok();
    let rows = rows.iter().filter_map(|row| Some((day(row.about.as_str())?, row.totals)));
    let rows: BTreeMap<Date, Totals> = rows.collect();
    let (Some(first), Some(last)) = (rows.keys().next().copied(), rows.keys().last().copied()) else {
        return Time { step: Step::Day, items: Vec::new() };
    };
    // Rolled up rows stand on the first day of theirs, which may lie before the period.
    let first = day(from).map_or(first, |from| from.min(first));
    let last = last_day(to).map_or(last, |to| to.max(last));
    let days = (last - first).total((Unit::Day, first)).unwrap_or(0.0) as i32;
    let step = match usize::try_from(days.clamp(0, MOST_DAYS)).unwrap_or(0) + 1 {
        days if days <= MOST_BARS => Step::Day,
        days if days <= MOST_BARS * 7 => Step::Week,
        _ => Step::Month,
    };
    let mut sums: BTreeMap<Date, Totals> = BTreeMap::new();
    let mut at = Some(step.first(first));
    while let Some(day) = at.filter(|day| *day <= last && sums.len() <= MOST_DAYS as usize) {
        sums.insert(day, Totals::default());
        at = step.next(day);
    }
    for (day, totals) in rows {
        sums.entry(step.first(day)).or_default().add(&totals);
    }
    Time { step, items: sums.into_iter().collect() }
}

/// The last day before this time.
pub(super) fn last_day(to: &str) -> Option<Date> {
    let date: Date = to.get(..10)?.parse().ok()?;
    if to.get(10..19).is_none_or(|time| time == "T00:00:00") { date.yesterday().ok() } else { Some(date) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::report::About;

    fn delivered(delivered: u64) -> Totals {
        Totals { delivered, local: delivered, ..Totals::default() }
    }

    fn day(day: &str, bytes: u64) -> SavingsRow {
        SavingsRow { about: About::Day(day.into()), totals: delivered(bytes) }
    }

    #[test]
    fn the_rest_is_added_up() {
        let rows = |count: u64| -> Vec<SavingsRow> {
            let row = |n| SavingsRow { about: About::Package(format!("p{n}")), totals: delivered(n) };
            (1..=count).map(row).collect()
        };
        let items = top(&rows(30), str::to_owned, |it| it.delivered);
        assert_eq!(items.len(), TOP + 1);
        assert_eq!((items[0].name.as_str(), items[TOP].name.as_str()), ("p30", "all 10 others"));
        assert_eq!(items.iter().map(|item| item.totals.delivered).sum::<u64>(), 30 * 31 / 2);
        assert_eq!(top(&rows(21), str::to_owned, |it| it.delivered)[TOP].name, "p1");
    }

    #[test]
    fn days_have_no_holes_and_long_periods_longer_steps() {
        let rows = [day("2026-11-02", 5), day("2026-11-04", 7)];
        let time = over_time(&rows, "2026-11-01T00:00:00Z", "2026-11-06T00:00:00Z");
        let names: Vec<_> = time.items.iter().map(|(day, it)| (day.to_string(), it.delivered)).collect();
        let right =
            [("2026-11-01", 0), ("2026-11-02", 5), ("2026-11-03", 0), ("2026-11-04", 7), ("2026-11-05", 0)];
        assert_eq!(names, right.map(|(day, bytes)| (day.to_owned(), bytes)));
        let year = [day("2026-01-01", 1), day("2026-12-31", 2)];
        let time = over_time(&year, "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z");
        assert_eq!((time.step, time.items.len()), (Step::Week, 53));
        assert_eq!(time.items[0].0.to_string(), "2025-12-29", "a Monday");
        let years = [day("2023-01-01", 1), day("2026-12-31", 2)];
        let time = over_time(&years, "2023-01-01T00:00:00Z", "2027-01-01T00:00:00Z");
        assert_eq!((time.step, time.items.len()), (Step::Month, 48));
        assert_eq!(time.items.iter().map(|(_, it)| it.delivered).sum::<u64>(), 3);
        assert!(over_time(&[], "1970-01-01T00:00:00Z", "2027-01-01T00:00:00Z").items.is_empty());
    }

    #[test]
    fn the_end_of_a_period_is_not_in_it() {
        let last = |to: &str| last_day(to).map(|day| day.to_string());
        assert_eq!(last("2026-12-01T00:00:00Z").as_deref(), Some("2026-11-30"));
        assert_eq!(last("2026-12-01T08:00:00Z").as_deref(), Some("2026-12-01"));
        assert_eq!(last("soon"), None);
    }
}
