//! The report's data as CSV, in long form: one line a row of any grouping, so that one filter on the first
//! column makes a table of it.

use super::super::escape;
use super::super::savings::{columns, figures, word};
use crate::node::report::{By, Savings};

/// What the file begins with, by which a later report knows it.
pub(super) const MARK: &str = "by,about,";
/// Longer links are not followed by some browsers.
const LONGEST_LINK: usize = 1 << 20;

/// All rows, not only those with a bar of their own, and their sum.
pub(super) fn csv(savings: &Savings, by: By) -> String {
    let mut text = format!("{MARK}{}\ntotal,,{}\n", columns(), figures(&savings.totals, by));
    let groupings = savings.also.iter().map(|it| (it.by, &it.rows));
    for (by, rows) in std::iter::once((by, &savings.rows)).chain(groupings) {
        for row in rows {
            let about = escape::csv(row.about.as_str());
            text.push_str(&format!("{},{about},{}\n", word(&by), figures(&row.totals, by)));
        }
    }
    text
}

/// The data as a link; `None` if that is too long for one.
pub(super) fn link(csv: &str) -> Option<String> {
    let link = format!("data:text/csv;charset=utf-8,{}", escape::percent(csv));
    (link.len() <= LONGEST_LINK).then_some(link)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ledger::Totals;
    use crate::node::report::{About, Grouping, SavingsRow};

    #[test]
    fn every_grouping_is_in_it() {
        let totals = Totals { delivered: 5, wan: 5, wan_wire: 9, ..Totals::default() };
        let row = |about| SavingsRow { about, totals };
        let savings = Savings {
            totals,
            rows: vec![row(About::Day("2026-11-01".into()))],
            also: vec![
                Grouping { by: By::Package, rows: vec![row(About::Package("+x@1".into()))] },
                Grouping { by: By::Reason, rows: vec![row(About::Reason("cold".into()))] },
            ],
            ..Savings::default()
        };
        let text = csv(&savings, By::Day);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("by,about,delivered,wan"), "{text}");
        assert!(lines[1].starts_with("total,,5,5,") && lines[1].ends_with(",-4,-9,0"), "{text}");
        assert!(lines[2].starts_with("day,2026-11-01,5,5,"), "{text}");
        assert!(lines[3].starts_with("package,'+x@1,5,5,"), "{text}");
        assert!(lines[4].starts_with("reason,cold,5,5,") && lines[4].ends_with(",,,"), "{text}");
        assert!(link(&text).is_some_and(|link| link.contains("%2C5%2C5%2C")), "{text}");
        assert_eq!(link(&"x".repeat(LONGEST_LINK)), None);
    }
}
