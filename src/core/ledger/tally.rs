//! What was booked since the ledger was opened: sums that only grow, kept beside the rows.
//!
//! The rows cannot be a monitoring system's counters: what is old goes, and what is rolled up moves.
//! The tally starts at nothing with the process, as such a system expects of a counter, and is brought
//! up to date from the rows that were touched, so that asking for it does not walk all of them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Ledger, Row, RowKey, Totals, WanReason};

/// The sums, and what they do not contain yet.
#[derive(Debug, Default)]
pub(super) struct Tally {
    sum: Row,
    /// Rows that were touched since the sums were brought up to date, as they were before.
    before: BTreeMap<RowKey, Row>,
    /// Rows that do not add up.
    faulty: BTreeSet<RowKey>,
}

impl Tally {
    /// A row is about to change.
    pub(super) fn touch(&mut self, key: &RowKey, row: &Row) {
        if !self.before.contains_key(key) {
            self.before.insert(key.clone(), row.clone());
        }
    }
}

impl Row {
    /// Adds what became of another row since it was `before`; not by who gave and took.
    pub fn grow(&mut self, now: &Self, before: &Self) {
        self.totals.add(&now.totals);
        self.totals = self.totals.since(&before.totals);
        grow(&mut self.reasons, &now.reasons, &before.reasons);
        grow(&mut self.content, &now.content, &before.content);
        grow(&mut self.duplicates, &now.duplicates, &before.duplicates);
    }
}

impl Ledger {
    /// What was booked since the ledger was opened, by reason; not by who gave and took. Its
    /// `preloaded_*` are what came since then and was not asked for yet: they can shrink.
    pub fn booked(&mut self) -> Row {
        self.bring_in();
        self.tally.sum.clone()
    }

    /// How many rows do not add up.
    pub fn faulty(&mut self) -> usize {
        self.bring_in();
        self.tally.faulty.len()
    }

    /// Takes what touched rows have become into the sums.
    pub(super) fn bring_in(&mut self) {
        for (key, before) in std::mem::take(&mut self.tally.before) {
            let Some(row) = self.rows.get(&key) else { continue };
            self.tally.sum.grow(row, &before);
            match row.fault() {
                Some(_) => self.tally.faulty.insert(key),
                None => self.tally.faulty.remove(&key),
            };
        }
    }

    /// Looks at all rows: they were read, or rolled up.
    pub(super) fn look_for_faults(&mut self) {
        let faulty = self.rows.iter().filter(|(_, row)| row.fault().is_some());
        self.tally.faulty = faulty.map(|(key, _)| key.clone()).collect();
    }

    /// What clients were handed since an hour, and what crossed the WAN for it, by package name.
    pub fn by_name(&self, since: u32) -> BTreeMap<&str, Totals> {
        let mut names: BTreeMap<&str, Totals> = BTreeMap::new();
        for (key, row) in self.rows(since..u32::MAX).filter(|(key, _)| !key.package.starts_with('(')) {
            let name = key.package.split_once('@').map_or(&*key.package, |(name, _)| name);
            names.entry(name).or_default().add(&row.totals);
        }
        names
    }
}

fn grow(
    sums: &mut BTreeMap<WanReason, u64>,
    now: &BTreeMap<WanReason, u64>,
    before: &BTreeMap<WanReason, u64>,
) {
    for (reason, bytes) in now {
        let grown = bytes.saturating_sub(before.get(reason).copied().unwrap_or(0));
        let sum = sums.entry(*reason).or_default();
        *sum = sum.saturating_add(grown);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Front, Keep, Source, Wire};
    use super::*;

    fn key(hour: u32) -> RowKey {
        RowKey { hour, package: format!("p@{hour}"), front: Front::Get }
    }

    #[test]
    fn the_tally_grows_whatever_becomes_of_the_rows() {
        let mut ledger = Ledger::default();
        ledger.wire(&key(1), WanReason::Cold, Wire { read: 1000, ..Wire::default() });
        let rows: Vec<_> = ledger.rows(0..9).map(|(key, row)| (key.clone(), row.clone())).collect();
        let mut ledger = Ledger::restore(rows);
        assert_eq!(ledger.booked(), Row::default(), "what was there before does not count");
        let mut arrival = ledger.arrived(key(1), Source::Wan(WanReason::Cold), 100);
        ledger.wire(&key(1), WanReason::Cold, Wire { read: 110, ..Wire::default() });
        let booked = ledger.booked();
        assert_eq!((booked.totals.preloaded_wan, booked.totals.wan_wire), (100, 110));
        ledger.delivered(&key(2), Some(&mut arrival), 60);
        ledger.settle(401 * 24, Keep { hourly_days: 35, days: 400, rows: 100 });
        assert!(ledger.is_empty());
        let booked = ledger.booked();
        assert_eq!((booked.totals.wan, booked.totals.preloaded_wan), (60, 40));
        assert_eq!((booked.content[&WanReason::Cold], booked.reasons[&WanReason::Cold]), (100, 110));
    }

    #[test]
    fn rows_that_do_not_add_up_are_counted() {
        let wrong = Row { totals: Totals { delivered: 1, ..Totals::default() }, ..Row::default() };
        let mut ledger = Ledger::restore([(key(1), wrong), (key(2), Row::default())]);
        assert_eq!(ledger.faulty(), 1);
        ledger.delivered(&key(2), None, 5);
        ledger.delivered(&RowKey { package: "(older)".into(), ..key(2) }, None, 5);
        assert_eq!(ledger.faulty(), 1);
        let names: Vec<_> = ledger.by_name(2).into_iter().map(|(name, it)| (name, it.delivered)).collect();
        assert_eq!(names, [("p", 5)]);
    }
}
