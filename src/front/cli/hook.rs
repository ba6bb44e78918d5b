//! `branchline hook`: what has become of the command that runs when a followed package has arrived.

use clap::Subcommand;

use super::client::Admin;
use super::show::table;
use super::{Output, outcomes};
use crate::core::orders::Selector;
use crate::front::http::HookOrder;
use crate::node::hook::HookResult;

#[derive(Debug, Subcommand)]
pub(super) enum HookCommand {
    /// The last results, with the end of what the hook said
    List {
        #[command(flatten)]
        admin: Admin,
        #[command(flatten)]
        output: Output,
    },
    /// Run it for a package that is here, whether it has run for it or not, and wait for its end
    Run {
        /// NAME@VERSION, NAME@CHANNEL or NAME
        package: Selector,
        #[command(flatten)]
        admin: Admin,
        #[command(flatten)]
        output: Output,
    },
}

impl HookCommand {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List { admin, output } => {
                let results: Vec<HookResult> = admin.facts("/api/v1/admin/hooks").await?;
                if output.json { super::print_json(&results) } else { super::print(&list(&results)) }
            }
            Self::Run { package, admin, output } => {
                let outcomes = admin.order("/api/v1/admin/hook", &HookOrder { package }).await?;
                outcomes::finish(&outcomes, output.json)
            }
        }
    }
}

fn list(results: &[HookResult]) -> String {
    if results.is_empty() {
        return "no hook has run here yet: one runs when a followed package has arrived ('hook' and 'follow' in the agent's configuration)".into();
    }
    let rows: Vec<Vec<String>> = results.iter().map(|it| vec![it.at.clone(), it.label(), it.end()]).collect();
    let mut lines: Vec<String> = Vec::new();
    for (row, result) in table(&rows).lines().zip(results) {
        lines.push(row.to_owned());
        // What a program says may hold anything: a terminal is not to obey it.
        let quiet =
            |line: &str| line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
        lines.extend(result.output.lines().map(|line| format!("    {}", quiet(line))));
    }
    lines.join("\n")
}
