//! `branchline savings`: the ledger.

mod audit;
mod bar;
mod table;
pub(super) mod words;

use clap::{Args, ValueEnum};

use super::client::Target;
use super::escape;
use super::hosts::Hosts;
use super::period::Period;
use crate::core::ledger::Totals;
use crate::node::report::{self, By, SavingsRow, Scope, Status};
use table::Paper;

/// How the ledger is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Table,
    Csv,
    Json,
}

#[derive(Debug, Args)]
pub(super) struct Savings {
    #[command(flatten)]
    period: Period,
    /// What a row stands for
    #[arg(long, value_enum, default_value_t)]
    by: By,
    /// This node, or all connected members of its site
    #[arg(long, value_enum, default_value_t)]
    scope: Scope,
    /// Has each node read its rows back from its disk, add them up, and hold them against its answers
    #[arg(long, conflicts_with_all = ["by", "format", "since", "from", "to"])]
    verify: bool,
    /// How it is printed; CSV and JSON hold all figures, in bytes
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Savings {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let (scope, by) = (word(&self.scope), word(&self.by));
        if self.verify {
            return audit::run(&self.target, &scope, self.json).await;
        }
        let path = format!("/api/v1/savings?scope={scope}&by={by}{}", self.period.query());
        let savings: report::Savings = self.target.json(&path).await?;
        match if self.json { Format::Json } else { self.format } {
            Format::Json => super::print_json(&savings),
            Format::Csv => {
                // The rows alone would pass for the whole.
                for note in words::notes(&savings, &Hosts::default()) {
                    eprintln!("branchline: {note}");
                }
                super::print(&csv(&savings.rows, self.by))
            }
            Format::Table => {
                let status: Option<Status> = self.target.json("/api/v1/status").await.ok();
                let hosts = Hosts::ask(&self.target, status.as_ref()).await;
                super::print(&text(&savings, self.by, &hosts, &Paper::of_stdout()))
            }
        }
    }
}

/// A value by its name on the command line.
pub(super) fn word(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// The names of all figures, and of the savings.
pub(super) fn columns() -> String {
    format!("{},saved_of_delivered,saved_of_direct,saved_by_recipe", Totals::NAMES.join(","))
}

/// The figures of a row, and the savings where they mean something: bytes by reason or by peer are no
/// share of what clients received.
pub(super) fn figures(totals: &Totals, by: By) -> String {
    let mut cells = totals.figures().map(|figure| figure.to_string()).to_vec();
    if matches!(by, By::Reason | By::Peer) {
        cells.extend([String::new(), String::new(), String::new()]);
    } else {
        let saved = [totals.saved_of_delivered(), totals.saved_of_direct(), totals.saved_by_recipe()];
        cells.extend(saved.map(|saved| saved.to_string()));
    }
    cells.join(",")
}

fn csv(rows: &[SavingsRow], by: By) -> String {
    let line = |row: &SavingsRow| format!("{},{}", escape::csv(row.about.as_str()), figures(&row.totals, by));
    let head = format!("{},{}", word(&by), columns());
    std::iter::once(head).chain(rows.iter().map(line)).collect::<Vec<_>>().join("\n")
}

fn text(savings: &report::Savings, by: By, hosts: &Hosts, paper: &Paper) -> String {
    let scope = match (savings.scope, savings.answered) {
        (Scope::Node, _) => "this node".to_owned(),
        (Scope::Site, 1) => "1 node of the site".to_owned(),
        (Scope::Site, nodes) => format!("{nodes} nodes of the site"),
    };
    let period = format!("{scope}, {} to {}", savings.from, savings.to);
    let mut parts = vec![table::table(savings, by, hosts, paper), period];
    parts.push(words::sentences(savings).join("\n"));
    let notes = words::notes(savings, hosts);
    if !notes.is_empty() {
        parts.push(notes.join("\n"));
    }
    parts.join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::report::About;

    #[test]
    fn csv_holds_all_figures_and_names_stay_text() {
        let totals = Totals { delivered: 10, wan: 10, wan_wire: 25, direct: 5, ..Totals::default() };
        let row = SavingsRow { about: About::Package("=cmd,\"x\"@1".into()), totals };
        let text = csv(std::slice::from_ref(&row), By::Package);
        let (head, line) = text.split_once('\n').expect("two lines");
        assert!(
            head.starts_with("package,delivered,wan,") && head.ends_with(",saved_of_direct,saved_by_recipe"),
            "{head}"
        );
        assert!(line.starts_with("\"'=cmd,\"\"x\"\"@1\",10,10,0,") && line.ends_with(",-15,-20,0"), "{line}");
        assert_eq!(head.split(',').count(), 1 + Totals::NAMES.len() + 3);
        assert!(csv(&[row], By::Reason).ends_with(",0,,,"), "no savings by reason");
    }
}
