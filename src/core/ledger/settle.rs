//! Keeping the ledger small: hours become days, and what is very old goes.

use std::collections::BTreeMap;

use super::{Front, Ledger, Row, RowKey};

/// Hours in a day.
const DAY: u32 = 24;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// Rows of an hour are kept for so many days, then a day's become one.
    pub hourly_days: u32,
    /// All rows go after so many days.
    pub days: u32,
    /// The most rows. Beyond them the oldest days lose the split by package.
    pub rows: usize,
}

/// How packages are called whose rows were rolled up.
pub const OLDER: &str = "(older)";

impl Ledger {
    /// Rolls up and drops rows by their age at `hour`; returns which are no more.
    pub fn settle(&mut self, hour: u32, keep: Keep) -> Vec<RowKey> {
        self.bring_in();
        let mut gone = self.drop_before(hour.saturating_sub(keep.days * DAY));
        let hourly = hour.saturating_sub(keep.hourly_days * DAY) / DAY * DAY;
        gone.extend(self.roll_up(hourly, |key| RowKey { hour: key.hour / DAY * DAY, ..key.clone() }));
        while self.len() > keep.rows {
            // The oldest day that still has packages; what is of today still changes.
            let oldest = self.rows.keys().find(|key| key.package != OLDER).map(|key| key.hour / DAY * DAY);
            let Some(day) = oldest.filter(|day| day + DAY <= hour) else { break };
            let sum = |_: &RowKey| RowKey { hour: day, package: OLDER.into(), front: Front::None };
            gone.extend(self.roll_up_day(day, sum));
        }
        self.look_for_faults();
        gone
    }

    fn drop_before(&mut self, hour: u32) -> Vec<RowKey> {
        let kept = self.rows.split_off(&first_of(hour));
        std::mem::replace(&mut self.rows, kept).into_keys().collect()
    }

    /// Gives the rows before an hour other keys, and adds up those that become one.
    fn roll_up(&mut self, before: u32, to: impl Fn(&RowKey) -> RowKey) -> Vec<RowKey> {
        let kept = self.rows.split_off(&first_of(before));
        let old = std::mem::replace(&mut self.rows, kept);
        self.put(old, to)
    }

    fn roll_up_day(&mut self, day: u32, to: impl Fn(&RowKey) -> RowKey) -> Vec<RowKey> {
        let later = self.rows.split_off(&first_of(day + DAY));
        let old = self.rows.split_off(&first_of(day));
        self.rows.extend(later);
        self.put(old, to)
    }

    fn put(&mut self, old: BTreeMap<RowKey, Row>, to: impl Fn(&RowKey) -> RowKey) -> Vec<RowKey> {
        let mut gone = Vec::new();
        for (key, row) in old {
            let new = to(&key);
            let moved = new != key;
            self.rows.entry(new.clone()).or_default().add(&row);
            if moved {
                self.changed.insert(new);
                self.changed.remove(&key);
                gone.push(key);
            }
        }
        gone.retain(|key| !self.rows.contains_key(key));
        gone
    }
}

fn first_of(hour: u32) -> RowKey {
    RowKey { hour, package: String::new(), front: Front::None }
}

#[cfg(test)]
mod tests {
    use super::super::{Source, Totals, WanReason};
    use super::*;

    const KEEP: Keep = Keep { hourly_days: 35, days: 400, rows: 20 };

    fn ledger(days: u32, packages: u32) -> Ledger {
        let mut ledger = Ledger::default();
        for hour in 0..days * DAY {
            for package in 0..packages {
                let key = RowKey { hour, package: format!("p{package}@1"), front: Front::Get };
                let mut arrival = ledger.arrived(key.clone(), Source::Wan(WanReason::Cold), 10);
                ledger.delivered(&key, Some(&mut arrival), 10);
            }
        }
        ledger.take_changed();
        ledger
    }

    fn sum(ledger: &Ledger) -> Totals {
        let mut totals = Totals::default();
        ledger.rows(0..u32::MAX).for_each(|(_, row)| totals.add(&row.totals));
        totals
    }

    #[test]
    fn old_hours_become_days_and_nothing_is_lost() {
        let (mut ledger, hour) = (ledger(40, 1), 40 * DAY);
        let before = sum(&ledger);
        let gone = ledger.settle(hour, Keep { rows: 10_000, ..KEEP });
        assert_eq!(ledger.len(), (5 + 35 * DAY) as usize, "five days, and the hours of the rest");
        assert_eq!(gone.len(), (5 * (DAY - 1)) as usize, "the first hour of a day stands for it");
        assert_eq!(sum(&ledger), before);
        assert_eq!(ledger.take_changed().len(), 5);
        assert_eq!(ledger.settle(hour, Keep { rows: 10_000, ..KEEP }), [], "once");
        assert!(ledger.rows(0..u32::MAX).all(|(_, row)| row.fault().is_none()));
    }

    #[test]
    fn beyond_the_most_rows_the_oldest_days_lose_their_packages() {
        let (mut ledger, hour) = (ledger(60, 3), 60 * DAY);
        let before = sum(&ledger);
        ledger.settle(hour, Keep { rows: 40 * 24, ..KEEP });
        assert!(ledger.len() <= 40 * 24);
        assert_eq!(sum(&ledger), before);
        assert_eq!(ledger.rows(0..u32::MAX).next().map(|(key, _)| key.package.as_str()), Some(OLDER));
        assert_eq!(ledger.rows(0..u32::MAX).last().map(|(key, _)| key.package.as_str()), Some("p2@1"));
    }

    #[test]
    fn what_is_too_old_goes() {
        let mut ledger = ledger(2, 1);
        let gone = ledger.settle(401 * DAY, Keep { rows: 10_000, ..KEEP });
        assert_eq!((gone.len(), ledger.len()), (24 + 23, 1), "the first day goes, the second is one row");
    }
}
