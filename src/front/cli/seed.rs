//! `branchline seed`: brings a package into the site before anybody needs it, and keeps it there.

use anyhow::bail;
use clap::Args;
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::client::{Admin, giver};
use super::{Output, outcomes};
use crate::core::orders::{self, Copies, Selector};
use crate::front::http::SeedOrder;

#[derive(Debug, Args)]
pub(super) struct Seed {
    /// NAME@VERSION, NAME@CHANNEL (whatever the channel points at), or NAME
    package: Selector,
    /// How many machines of the site keep a copy: a number, or 'all'
    #[arg(long, default_value = "1")]
    copies: Copies,
    /// Keep every copy, also those that clients bring
    #[arg(long)]
    pin: bool,
    /// When it is to be there, such as 07:00 (the next one) or 2026-11-26T07:00: it goes in the background
    /// until it would come too late
    #[arg(long, value_name = "TIME")]
    by: Option<String>,
    /// Keep it no more
    #[arg(long, conflicts_with_all = ["copies", "pin", "by"])]
    stop: bool,
    #[command(flatten)]
    admin: Admin,
    #[command(flatten)]
    output: Output,
}

impl Seed {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let by = self.by.as_deref().map(|text| time(text, &Zoned::now())).transpose()?;
        let seed = orders::Seed { copies: self.copies, by, pin: self.pin };
        let said = match self.stop {
            true => format!("{} is kept no more", self.package),
            false => {
                format!("{} is brought in and kept; 'branchline status' says how far it is", self.package)
            }
        };
        let order = SeedOrder { package: self.package, seed: (!self.stop).then_some(seed), by: giver() };
        let outcomes = self.admin.order("/api/v1/admin/seed", &order).await?;
        outcomes::finish_order(&outcomes, self.output.json, &said)
    }
}

/// A time as people write it, in this machine's time zone unless it says another.
fn time(text: &str, now: &Zoned) -> anyhow::Result<Timestamp> {
    let zone: &TimeZone = now.time_zone();
    let at = if let Ok(at) = text.parse::<Timestamp>() {
        at
    } else if let Ok(at) = text.parse::<DateTime>() {
        at.to_zoned(zone.clone())?.timestamp()
    } else if let Ok(time) = text.parse::<Time>() {
        let today = now.date().to_datetime(time).to_zoned(zone.clone())?;
        let next = if today > *now {
            today
        } else {
            now.date().tomorrow()?.to_datetime(time).to_zoned(zone.clone())?
        };
        next.timestamp()
    } else {
        bail!("--by {text:?} is no time; give one such as 07:00, 2026-11-26T07:00 or 2026-11-26T07:00Z");
    };
    if at <= now.timestamp() {
        bail!("--by {text} is over already");
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_the_next_ones_in_this_time_zone() {
        let now: Zoned = "2026-11-25T18:00:00+01:00[Europe/Berlin]".parse().expect("a time");
        let at = |text| time(text, &now).map(|at| at.to_string());
        assert_eq!(at("07:00").expect("a time"), "2026-11-26T06:00:00Z");
        assert_eq!(at("19:30").expect("a time"), "2026-11-25T18:30:00Z");
        assert_eq!(at("2026-12-01T07:00").expect("a time"), "2026-12-01T06:00:00Z");
        assert_eq!(at("2026-12-01T07:00Z").expect("a time"), "2026-12-01T07:00:00Z");
        assert!(at("2026-11-01T07:00").is_err() && at("soon").is_err());
    }
}
