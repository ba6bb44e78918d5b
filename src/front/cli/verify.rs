//! `branchline verify`: reads back what is held, hashes it, and follows how far that is.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::client::{Admin, giver};
use super::{Output, outcomes};
use crate::core::bitrate::Rate;
use crate::core::lapse::Lapse;
use crate::core::orders::Selector;
use crate::front::http::{OfSite, VerifyOrder};
use crate::node::errands::{Outcome, Outcomes};

/// Looks at how far it is are so far apart: the first ones, and later ones.
const SOON: Duration = Duration::from_millis(200);
const LOOK: Duration = Duration::from_secs(1);
/// What is damaged is waited for so long, when all was read, to be fetched anew.
const HEALING: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// NAME@VERSION or NAME@CHANNEL [default: all that is held]
    package: Option<Selector>,
    /// On every machine of the site
    #[arg(long)]
    site: bool,
    /// Read no faster, such as 20MB/s [default: as fast as the disk gives]
    #[arg(long, value_name = "RATE")]
    rate: Option<Rate>,
    /// Machines that have not finished are waited for so long; they go on by themselves
    #[arg(long, value_name = "SPAN", default_value = "6h")]
    patience: Lapse,
    #[command(flatten)]
    admin: Admin,
    #[command(flatten)]
    output: Output,
}

impl Verify {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let order =
            VerifyOrder { package: self.package.clone(), rate: self.rate, site: self.site, by: giver() };
        let begun: Outcomes = self.admin.order("/api/v1/admin/verify", &order).await?;
        if !begun.nodes.iter().any(|it| it.verify.is_some()) {
            return outcomes::finish(&begun, self.output.json);
        }
        let last = self.follow(begun).await?;
        outcomes::finish(&last, self.output.json)?;
        let left =
            last.nodes.iter().filter(|it| it.verify.as_ref().is_some_and(|run| run.ended.is_none())).count();
        match left {
            0 => Ok(()),
            left => bail!(
                "{left} machines have not finished within {}; they go on, see 'branchline status'",
                self.patience
            ),
        }
    }

    /// Looks again and again, until all have ended; with what the last look has shown of each.
    async fn follow(&self, mut known: Outcomes) -> anyhow::Result<Outcomes> {
        let (begun, bar) = (Instant::now(), self.bar()?);
        let mut all_read: Option<Instant> = None;
        loop {
            tokio::time::sleep(if begun.elapsed() < LOOK { SOON } else { LOOK }).await;
            let look: Outcomes =
                self.admin.order("/api/v1/admin/verified", &OfSite { site: self.site }).await?;
            known = newer(known, look);
            show(&bar, &known);
            let runs = || known.nodes.iter().filter_map(|it| it.verify.as_ref());
            if runs().all(|run| run.ended.is_some()) {
                all_read.get_or_insert_with(Instant::now);
            }
            let waited = all_read.is_some_and(|at| at.elapsed() > HEALING);
            if runs().all(|run| run.is_over()) || waited || begun.elapsed() > self.patience.duration() {
                bar.finish_and_clear();
                return Ok(known);
            }
        }
    }

    fn bar(&self) -> anyhow::Result<ProgressBar> {
        if self.output.json || !std::io::stderr().is_terminal() {
            return Ok(ProgressBar::hidden());
        }
        let style = "{bar:30} {percent:>3} % of {total_bytes}, {bytes_per_sec}, {msg}";
        Ok(ProgressBar::new(0).with_style(ProgressStyle::with_template(style)?))
    }
}

/// What a look has shown, and of those that did not answer this time, what is known of them. One that
/// refused to begin stays refused.
fn newer(mut known: Outcomes, look: Outcomes) -> Outcomes {
    for it in &mut known.nodes {
        let now = look.nodes.iter().find(|now| now.node == it.node && now.verify.is_some());
        if let Some(now) = now.filter(|now| it.verify.is_some() && same_run(it, now)) {
            *it = now.clone();
        }
    }
    known
}

fn same_run(one: &Outcome, other: &Outcome) -> bool {
    let begun = |it: &Outcome| it.verify.as_ref().map(|run| run.begun.clone());
    begun(one) == begun(other)
}

fn show(bar: &ProgressBar, known: &Outcomes) {
    let runs = || known.nodes.iter().filter_map(|it| it.verify.as_ref());
    bar.set_length(runs().map(|run| run.bytes_total).sum());
    bar.set_position(runs().map(|run| run.bytes.min(run.bytes_total)).sum());
    let damaged: usize = runs().map(|run| run.damaged_chunks).sum();
    let left = runs().filter(|run| run.ended.is_none()).count();
    bar.set_message(format!("{damaged} damaged chunks, {left} machines left"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::report::VerifyRun;

    fn node(name: &str, begun: &str, bytes: u64) -> Outcome {
        let run = VerifyRun { begun: begun.into(), bytes, ..VerifyRun::default() };
        Outcome { node: name.into(), verify: Some(run), ..Outcome::default() }
    }

    #[test]
    fn who_says_nothing_this_time_keeps_what_he_said_last() {
        let known =
            Outcomes { nodes: vec![node("a", "1", 1), node("b", "1", 1)], unanswered: vec!["c".into()] };
        let look =
            Outcomes { nodes: vec![node("a", "1", 9), node("d", "1", 9)], unanswered: vec!["b".into()] };
        let known = newer(known, look);
        let bytes: Vec<u64> =
            known.nodes.iter().filter_map(|it| it.verify.as_ref()).map(|run| run.bytes).collect();
        assert_eq!((bytes, known.unanswered.len()), (vec![9, 1], 1));
        let other = Outcomes { nodes: vec![node("a", "2", 0)], unanswered: Vec::new() };
        assert_eq!(newer(known.clone(), other), known, "another run is none of ours");
    }
}
