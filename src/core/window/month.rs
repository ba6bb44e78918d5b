//! How much a month may take from the WAN.

use jiff::ToSpan;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::core::bitrate::Size;

/// A budget of bytes for each month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Month {
    /// The most that crosses in a month.
    pub bytes: Size,
    /// The day on which it begins, 1 to 28.
    pub first_day: i8,
    /// Shares of it, in percent, at which a warning is given; rising.
    pub warn_at: Vec<u32>,
    /// What happens when it is used up.
    pub then: Then,
}

/// What happens when a month is used up, until the next one begins. Urgent clients go on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// Background is closed.
    #[default]
    Background,
    /// Everything is closed.
    All,
    /// Nothing but a warning.
    Warn,
}

impl Month {
    /// When the month of a day began.
    pub(super) fn began(&self, today: Date) -> Date {
        let here = today.first_of_month();
        let month = if today.day() >= self.first_day { here } else { here.saturating_sub(1.month()) };
        month.saturating_add(i64::from(self.first_day - 1).days())
    }

    /// The highest share that is reached, in percent, of those to be warned of.
    pub fn reached(&self, used: u64) -> Option<u32> {
        let reached = |share: &u32| u128::from(used) * 100 >= u128::from(self.bytes.0) * u128::from(*share);
        self.warn_at.iter().copied().chain([100]).filter(reached).max()
    }

    /// It is used up.
    pub fn is_over(&self, used: u64) -> bool {
        used >= self.bytes.0
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn months_begin_on_their_day_and_shares_are_reached_once() {
        let month = Month { bytes: Size(1000), first_day: 15, warn_at: vec![50, 80], then: Then::default() };
        assert_eq!(month.began(date(2026, 3, 15)), date(2026, 3, 15));
        assert_eq!(month.began(date(2026, 3, 14)), date(2026, 2, 15));
        assert_eq!(month.began(date(2026, 1, 1)), date(2025, 12, 15));
        let reached: Vec<_> = [0, 499, 500, 801, 1000, u64::MAX].map(|used| month.reached(used)).into();
        assert_eq!(reached, [None, None, Some(50), Some(80), Some(100), Some(100)]);
        assert!(!month.is_over(999) && month.is_over(1000));
    }
}
