//! `branchline report`: the ledger of a period as one page for people who do not run agents, and as CSV.

mod chart;
mod data;
mod file;
mod fold;
mod page;
#[cfg(test)]
mod sample;
mod tables;

use std::path::PathBuf;

use clap::Args;

use super::client::Target;
use super::hosts::Hosts;
use super::period::Period;
use super::savings::word;
use crate::node::report::{By, Savings, Scope, Status};

/// The groupings of the page, besides the days. All are asked for at once: one reading of the books, so that
/// no chart contradicts another.
const ALSO: [By; 3] = [By::Package, By::Reason, By::Node];

#[derive(Debug, Args)]
pub(super) struct Report {
    #[command(flatten)]
    period: Period,
    /// This node, or all connected members of its site
    #[arg(long, value_enum, default_value_t = Scope::Site)]
    scope: Scope,
    /// Where the page is written, its data beside it as .csv; '-' writes the page to standard output
    /// [default: branchline-SITE-FROM-TO.html]
    #[arg(short, long, value_name = "FILE.html")]
    output: Option<PathBuf>,
    /// Overwrite files that are no earlier report (earlier reports are overwritten without it)
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    target: Target,
}

/// What a page is made from.
struct Facts {
    /// By day, and grouped by [`ALSO`].
    savings: Savings,
    hosts: Hosts,
    site: String,
    /// Who was asked.
    node: String,
    version: String,
    /// When, UTC.
    made: String,
}

impl Report {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let also = ALSO.map(|by| word(&by)).join(",");
        let (scope, period) = (word(&self.scope), self.period.query());
        let named = self.output.clone().filter(|path| path.as_os_str() != "-");
        // A name that cannot be written to is told before the site is asked.
        if let Some(path) = &named {
            file::Place::new(path.clone())?.check(self.force)?;
        }
        let status: Status = self.target.json("/api/v1/status").await?;
        let hosts = Hosts::ask(&self.target, Some(&status)).await;
        let path = format!("/api/v1/savings?scope={scope}&by=day&also={also}{period}");
        let savings: Savings = self.target.json(&path).await?;
        let made = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string();
        let Status { site, node, version, .. } = status;
        let facts = Facts { savings, hosts, site, node, version, made };
        let data = data::csv(&facts.savings, By::Day);
        if self.output.is_some() && named.is_none() {
            return super::print(&page::page(&facts, &data, None));
        }
        let place = file::Place::new(named.unwrap_or_else(|| facts.name().into()))?;
        place.check(self.force)?;
        place.write(&page::page(&facts, &data, place.data.file_name()), &data)?;
        super::print(&format!("{}\n{}", place.page.display(), place.data.display()))
    }
}

impl Facts {
    /// The file, if nothing is said.
    fn name(&self) -> String {
        let (from, to) = self.days();
        // What a site may be called is what a file may be called, but for the colon on some systems.
        format!("branchline-{}-{from}-{to}.html", self.site.replace([':', '/'], "-"))
    }

    /// The first and the last day.
    fn days(&self) -> (String, String) {
        let from = self.savings.from.get(..10).unwrap_or("beginning").to_owned();
        let to = fold::last_day(&self.savings.to).map_or_else(|| from.clone(), |day| day.to_string());
        let to = to.max(from.clone());
        (from, to)
    }
}
