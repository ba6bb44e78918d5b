//! `branchline savings`: the ledger.

use clap::{Args, ValueEnum};

use super::client::Target;
use super::show::table;
use crate::core::bitrate::Size;
use crate::core::ledger::Totals;
use crate::node::report::{self, By, Scope};

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
    /// Only the last so many days or hours, such as 7d or 24h
    #[arg(long, value_name = "SPAN")]
    since: Option<String>,
    /// What a row stands for
    #[arg(long, value_enum, default_value_t)]
    by: By,
    /// This node, or all connected members of its site
    #[arg(long, value_enum, default_value_t)]
    scope: Scope,
    /// How it is printed
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
        let mut path = format!("/api/v1/savings?scope={}&by={}", word(&self.scope), word(&self.by));
        if let Some(since) = &self.since {
            anyhow::ensure!(
                since.chars().all(|c| c.is_ascii_alphanumeric()),
                "write the span like 7d or 24h"
            );
            path = format!("{path}&since={since}");
        }
        let savings: report::Savings = self.target.json(&path).await?;
        match if self.json { Format::Json } else { self.format } {
            Format::Json => super::print_json(&savings),
            Format::Csv => super::print(&csv(&savings, &word(&self.by))),
            Format::Table => super::print(&text(&savings, &word(&self.by))),
        }
    }
}

/// A value by its name on the command line.
fn word(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn csv(savings: &report::Savings, by: &str) -> String {
    let mut lines = vec![format!("{by},{}", Totals::NAMES.join(","))];
    for row in &savings.rows {
        let figures = row.totals.figures().map(|figure| figure.to_string());
        lines.push(format!("{},{}", row.about.as_str(), figures.join(",")));
    }
    lines.join("\n")
}

fn text(savings: &report::Savings, by: &str) -> String {
    let mut header = vec![by.to_uppercase()];
    header.extend(Totals::NAMES.map(|column| column.to_uppercase().replace('_', " ")));
    let line = |name: &str, totals: &Totals| {
        let mut cells = vec![name.to_owned()];
        cells.extend(totals.figures().map(|figure| Size(figure).to_string()));
        cells
    };
    let mut rows = vec![header];
    rows.extend(savings.rows.iter().map(|row| line(row.about.as_str(), &row.totals)));
    rows.push(line("total", &savings.totals));
    let mut text = table(&rows);
    let (delivered, wan) = (savings.totals.delivered, savings.totals.wan_wire);
    if delivered > 0 {
        let saved = 100.0 * (1.0 - wan as f64 / delivered as f64);
        text = format!(
            "{text}\n\nclients received {}, {} crossed the WAN: {saved:.1} % saved",
            Size(delivered),
            Size(wan)
        );
    }
    if !savings.unanswered.is_empty() {
        text = format!("{text}\nnot counted, since they did not answer: {}", savings.unanswered.join(", "));
    }
    text
}
