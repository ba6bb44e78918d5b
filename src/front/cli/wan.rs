//! `branchline wan`: when the site may take how much from the WAN.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};

use super::client::{Admin, Target, giver};
use super::show::table;
use super::{Output, outcomes};
use crate::core::bitrate::{Rate, Size};
use crate::core::window::{Kind, LONGEST, Plan, Schedule};
use crate::front::http::{WanChange, WanOrder};
use crate::node::report::{Wan, WanMonth};

#[derive(Debug, Subcommand)]
pub(super) enum WanCommand {
    /// Give the site a schedule: checked first, known to all nodes within a second
    Schedule(Give),
    /// What holds now and until when, what the site takes, and its month
    Show(Show),
    /// Take the schedule back: nothing but --wan-limit binds the site then
    Clear(Order),
    /// Open the WAN for a while, whatever the schedule says
    Open(Open),
    /// End an opening; or, with --for, close the WAN for a while but for urgent clients
    Close(Close),
}

#[derive(Debug, Args)]
pub(super) struct Give {
    /// The schedule, as TOML; '-' for standard input
    file: PathBuf,
    /// Only check it, and say what it means
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    order: Order,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Order {
    #[command(flatten)]
    admin: Admin,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Open {
    /// For how long, such as 30m or 2h
    #[arg(long = "for", value_name = "SPAN", value_parser = span)]
    span: i64,
    /// For the background too
    #[arg(long)]
    background: bool,
    #[command(flatten)]
    order: Order,
}

#[derive(Debug, Args)]
pub(super) struct Close {
    /// For how long, such as 30m or 2h
    #[arg(long = "for", value_name = "SPAN", value_parser = span)]
    span: Option<i64>,
    #[command(flatten)]
    order: Order,
}

/// Seconds of `90s`, `30m`, `2h` or `3d`.
fn span(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is no time span; write it like 30m, 2h or 1d");
    let unit = text.trim().chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(wrong()),
    };
    let number: u32 = text.trim().trim_end_matches(unit).parse().map_err(|_| wrong())?;
    i64::from(number).checked_mul(seconds).filter(|&span| span > 0).ok_or_else(wrong)
}

impl WanCommand {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Schedule(give) => give.run().await,
            Self::Show(show) => show.run().await,
            Self::Clear(order) => order.give(WanChange::Schedule(None)).await,
            Self::Open(open) => {
                let kind = if open.background { Kind::OpenAll } else { Kind::OpenForeground };
                open.order.give(WanChange::Hold { kind, seconds: open.span }).await
            }
            Self::Close(close) => match close.span {
                Some(seconds) => close.order.give(WanChange::Hold { kind: Kind::Closed, seconds }).await,
                None => close.order.give(WanChange::Release {}).await,
            },
        }
    }
}

impl Order {
    async fn give(&self, change: WanChange) -> anyhow::Result<()> {
        let order = WanOrder { change, by: giver() };
        let outcomes = self.admin.order("/api/v1/admin/wan", &order).await?;
        outcomes::finish(&outcomes, self.output.json)
    }
}

impl Give {
    async fn run(self) -> anyhow::Result<()> {
        let text = read(&self.file)?;
        let schedule: Schedule =
            text.parse().with_context(|| format!("the schedule in {} is refused", self.file.display()))?;
        if !self.check {
            self.order.give(WanChange::Schedule(Some(text))).await?;
        }
        if self.order.output.json { Ok(()) } else { super::print(&meaning(&schedule, Timestamp::now())) }
    }
}

/// The schedule's text; no more than a schedule may have.
fn read(file: &Path) -> anyhow::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let most = LONGEST as u64 + 1;
    let read = if file.as_os_str() == "-" {
        std::io::stdin().lock().take(most).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(most).read_to_string(&mut text))
    };
    read.with_context(|| format!("cannot read {}", file.display()))?;
    if text.len() > LONGEST {
        bail!("{} is longer than {LONGEST} bytes: that is no schedule", file.display());
    }
    Ok(text)
}

/// What a schedule means now, and next.
fn meaning(schedule: &Schedule, now: Timestamp) -> String {
    let plan = Plan { schedule: Some(schedule), ..Plan::default() };
    let mut rows = Vec::new();
    let mut at = now;
    for which in ["now", "next", "then"] {
        let Some(holds) = plan.at(at) else { break };
        let when = if at == now { String::new() } else { format!("from {}: ", holds.clock(now, at)) };
        rows.push(vec![which.to_owned(), format!("{when}{} ({})", holds.rule, holds.reason())]);
        let Some(until) = holds.until else { break };
        at = until;
    }
    table(&rows)
}

impl Show {
    async fn run(self) -> anyhow::Result<()> {
        let wan: Wan = self.target.json("/api/v1/wan").await?;
        if self.output.json {
            return super::print_json(&wan);
        }
        let mut rows = vec![("now", wan.text.clone())];
        rows.extend(wan.next.clone().map(|next| ("next", next)));
        rows.extend(wan.order.as_ref().map(|order| {
            let what = match order.kind {
                Kind::OpenForeground => "open for clients that wait",
                Kind::OpenAll => "open for all",
                Kind::Closed => "closed",
            };
            ("order", format!("{what} until {}, by {}", order.until, order.by))
        }));
        rows.extend(wan.using.map(|using| ("using", Rate(using).to_string())));
        rows.extend(wan.month.as_ref().map(|it| ("month", month(it))));
        rows.push(("decides", format!("the clock of node {}", outcomes::short(&wan.holder))));
        rows.extend(wan.by.as_ref().map(|by| ("given by", by.clone())));
        let rows: Vec<Vec<String>> =
            rows.into_iter().map(|(name, text)| vec![name.to_owned(), text]).collect();
        super::print(&table(&rows))?;
        wan.schedule.map_or(Ok(()), |schedule| super::print(&format!("\n{}", schedule.trim_end())))
    }
}

fn month(month: &WanMonth) -> String {
    let Some(used) = month.used else { return "not yet added up".into() };
    let share = used as f64 * 100.0 / month.bytes.max(1) as f64;
    let away = match month.away {
        None | Some(0) => String::new(),
        Some(away) => format!("; {away} machines are away, and count as when they last answered"),
    };
    let began = month
        .began
        .parse::<Timestamp>()
        .map_or(SignedDuration::ZERO, |at| Timestamp::now().duration_since(at));
    let days = began.as_hours() / 24 + 1;
    format!("{} of {} ({share:.1} %) on its day {days}{away}", Size(used), Size(month.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_as_people_write_them() {
        assert_eq!(span("90s"), Ok(90));
        assert_eq!(span("2h"), Ok(7200));
        assert_eq!(span(" 1d"), Ok(86_400));
        for bad in ["", "2", "h", "-1h", "0m", "2hours", "99999999999h"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_schedule_is_explained() {
        let text =
            "zone = 'Europe/Lisbon'\n[[window]]\nname = 'day'\nhours = '08:00-18:00'\nforeground = '8mbit'";
        let schedule: Schedule = text.parse().expect("valid");
        let now = "2026-07-06T12:00:00Z".parse().expect("a time");
        assert_eq!(
            meaning(&schedule, now),
            "now   8.0 Mbit/s (window \"day\")\n\
             next  from 18:00 Europe/Lisbon: unlimited (outside of all windows)\n\
             then  from 08:00 Europe/Lisbon: 8.0 Mbit/s (window \"day\")"
        );
    }
}
