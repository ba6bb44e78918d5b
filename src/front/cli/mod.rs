//! The command line: one file a subcommand. Exit codes: 0 done, 1 failed, 2 wrong usage.

mod agent;
mod catalog;
mod client;
mod config;
mod demo;
mod doctor;
mod escape;
mod evict;
mod explain;
mod export;
mod gc;
mod get;
mod history;
mod hook;
mod hosts;
mod import;
mod orders;
mod origin;
mod outcomes;
mod packages;
mod period;
mod pin;
mod promote;
mod publish;
mod report;
mod retire;
mod rollback;
mod savings;
mod seed;
mod setup;
mod show;
mod site;
mod upkeep;
mod verify;
mod wan;

use clap::{Args, CommandFactory, Parser, Subcommand};

pub use client::Target;

/// Brings software packages to branch offices: one copy over the WAN, the rest from neighbours.
#[derive(Debug, Parser)]
#[command(name = "branchline", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The whole story on this machine: an origin, agents, a publish, a fetch, an upgrade
    Demo(demo::Demo),
    /// Make, serve or renew an origin
    #[command(subcommand)]
    Origin(origin::OriginCommand),
    /// Publish a file as a version of a package
    Publish(publish::Publish),
    /// Point a channel of a package at a version, later or earlier
    Promote(promote::Promote),
    /// Point a channel at the version that it pointed at before
    Rollback(rollback::Rollback),
    /// Refuse new fetches of a version; what is in use goes on
    Retire(retire::Retire),
    /// What the channels of a package pointed at, and when
    History(history::History),
    /// Site keys
    #[command(subcommand)]
    Site(site::SiteCommand),
    /// Run the agent
    Agent(Box<agent::Agent>),
    /// Fetch a package through the local agent, verified
    Get(get::Get),
    /// What this node is and does
    Status(show::Status),
    /// Try what an agent depends on: ports, discovery, clock, disk, origin and a sample transfer; with one
    /// cause for what fails
    Doctor(Box<doctor::Doctor>),
    /// The members that this node is connected to
    Peers(show::Peers),
    /// The packages in the catalog, and who holds what
    Packages(packages::Packages),
    /// The ledger: how many bytes crossed the WAN, and how many did not have to
    Savings(savings::Savings),
    /// The ledger of a period as a page for people, with charts, and as CSV
    Report(report::Report),
    /// What admins have ordered for this node and its site, who did, and when
    Orders(orders::ShowOrders),
    /// Bring a package into the site, and keep copies of it there
    Seed(seed::Seed),
    /// Have a package here, or on the whole site, and never evict it
    Pin(pin::Pin),
    /// Let a pinned package be evicted again
    Unpin(pin::Pin),
    /// Throw a package away, here or on the whole site
    Evict(evict::Evict),
    /// When the site may take how much from the WAN: a schedule, an opening, a closing
    #[command(subcommand)]
    Wan(wan::WanCommand),
    /// Write packages to a bundle: one file, for sites that are to have them without the WAN
    Export(export::Export),
    /// Read a bundle: its packages are here and in the site, verified
    Import(import::Import),
    /// Read back from the disk what is held, hash it, and fetch anew what is damaged
    Verify(verify::Verify),
    /// Free what nothing needs, here or on the whole site
    Gc(gc::Gc),
    /// The command that runs when a followed package has arrived
    #[command(subcommand)]
    Hook(hook::HookCommand),
    /// Point a package tool of this machine at the agent, or away from it
    Setup(setup::Setup),
    /// Completions for a shell
    Completions {
        /// Which
        shell: clap_complete::Shell,
    },
}

/// For commands that print facts.
#[derive(Debug, Args)]
struct Output {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs a command.
///
/// # Errors
/// What happened, what it means, and what to do.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Agent(agent) => agent.run(),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "branchline", &mut std::io::stdout());
            Ok(())
        }
        command => {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            let result = runtime.block_on(run_short(command));
            // What was given up may still be working on a thread of its own.
            runtime.shutdown_background();
            result
        }
    }
}

async fn run_short(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Demo(demo) => demo.run().await,
        Command::Origin(command) => command.run().await,
        Command::Publish(publish) => publish.run().await,
        Command::Promote(promote) => promote.run().await,
        Command::Rollback(rollback) => rollback.run().await,
        Command::Retire(retire) => retire.run().await,
        Command::History(history) => history.run().await,
        Command::Site(command) => command.run(),
        Command::Get(get) => get.run().await,
        Command::Doctor(doctor) => doctor.run().await,
        Command::Status(status) => status.run().await,
        Command::Peers(peers) => peers.run().await,
        Command::Packages(packages) => packages.run().await,
        Command::Savings(savings) => savings.run().await,
        Command::Report(report) => report.run().await,
        Command::Orders(orders) => orders.run().await,
        Command::Seed(seed) => seed.run().await,
        Command::Pin(pin) => pin.run(true).await,
        Command::Unpin(pin) => pin.run(false).await,
        Command::Evict(evict) => evict.run().await,
        Command::Wan(command) => command.run().await,
        Command::Export(export) => export.run().await,
        Command::Import(import) => import.run().await,
        Command::Verify(verify) => verify.run().await,
        Command::Gc(gc) => gc.run().await,
        Command::Hook(command) => command.run().await,
        Command::Setup(setup) => setup.run().await,
        Command::Agent(_) | Command::Completions { .. } => Ok(()),
    }
}

/// Prints facts as JSON.
fn print_json(facts: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&serde_json::to_string_pretty(facts)?)
}

/// Prints to standard output; a reader that has had enough is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
