//! `branchline doctor`: tries what an agent depends on, through the agent if it runs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use clap::Args;

use super::Output;
use super::client::Target;
use super::config::{self, Resolved, Written, default_gateway, default_state_dir};
use super::escape;
use super::show::table;
use crate::net::known_identity;
use crate::node::doctor::{Check, Checkup, State, before};
use crate::node::report::Status;

const TEST: &str = "agent";
/// An agent says by then what it has found, however slow its origin and its neighbours are.
const PATIENCE: Duration = Duration::from_secs(150);
/// Where the configuration is, unless told otherwise.
const CONFIG: &str = "/etc/branchline/agent.toml";

/// Give it what the agent is given.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// The agent's configuration [default: /etc/branchline/agent.toml, if it is there]
    #[arg(long, env = "BRANCHLINE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    written: Written,
    #[command(flatten)]
    output: Output,
}

impl Doctor {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let (checkup, json) = (examine(self.config, self.written).await, self.output.json);
        if json {
            super::print_json(&checkup)?;
        } else {
            super::print(&text(&checkup))?;
        }
        let failed = checkup.checks.iter().filter(|check| check.state == State::Failed).count();
        match failed {
            0 => Ok(()),
            1 => bail!("1 of {} tests failed", checkup.checks.len()),
            failed => bail!("{failed} of {} tests failed", checkup.checks.len()),
        }
    }
}

async fn examine(config: Option<PathBuf>, flags: Written) -> Checkup {
    // A plain user, who may not read it, has no use for it either.
    let readable = |path: &PathBuf| std::fs::File::open(path).is_ok();
    let config = config.or_else(|| Some(PathBuf::from(CONFIG)).filter(readable));
    let file = match config.as_deref().map(config::read).transpose() {
        Ok(file) => file.unwrap_or_default(),
        Err(error) => return only(unreadable(&error)),
    };
    let written = flags.over(file);
    let state_dir = written.state_dir.clone().unwrap_or_else(default_state_dir);
    let gateway = own(written.gateway.unwrap_or_else(default_gateway));
    let error = match ask(&Target::state_dir(&state_dir)).await {
        Ok(checkup) => return with(running(&state_dir, gateway).await, checkup),
        Err(error) if is_there(&error) => return only(of_no_use(&error)),
        Err(error) => error,
    };
    // A plain user may not use the socket, and whoever names no state directory may mean another.
    if is_same(&state_dir, written.state_dir.is_some(), gateway).await
        && let Ok(checkup) = ask(&Target::gateway(gateway)).await
    {
        let seen = format!("runs, and was asked at its gateway, {gateway}: {}", without_hint(&error));
        return with(Check::passed(TEST, seen), checkup);
    }
    let resolved = written.resolve();
    let agent = silent(&state_dir, &error, resolved.as_ref().err(), config.is_some());
    match resolved {
        Ok(Resolved { node, gateway, .. }) => with(agent, before::checkup(&node, gateway).await),
        Err(_) => only(agent),
    }
}

async fn ask(agent: &Target) -> anyhow::Result<Checkup> {
    let asked = tokio::time::timeout(PATIENCE, agent.order("/api/v1/doctor", &())).await;
    asked.unwrap_or_else(|_| Err(anyhow::anyhow!("it has said nothing for {} s", PATIENCE.as_secs())))
}

/// One that listens on all addresses is reached by this machine's own.
fn own(gateway: SocketAddr) -> SocketAddr {
    if gateway.ip().is_unspecified() { ([127, 0, 0, 1], gateway.port()).into() } else { gateway }
}

/// Whether the agent behind a gateway can be that of a state directory, which was named or not.
async fn is_same(state_dir: &Path, named: bool, gateway: SocketAddr) -> bool {
    let Ok(status) = Target::gateway(gateway).json::<Status>("/api/v1/status").await else { return false };
    match known_identity(state_dir) {
        Ok(Some(node)) => status.node == node.to_string(),
        Ok(None) => !named,
        Err(_) => true,
    }
}

fn with(agent: Check, mut checkup: Checkup) -> Checkup {
    checkup.checks.insert(0, agent);
    checkup
}

fn only(check: Check) -> Checkup {
    Checkup { checks: vec![check], faults: Vec::new() }
}

/// The configuration, or a file that it names.
fn unreadable(error: &anyhow::Error) -> Check {
    let why = format!("{error:#}");
    // As the system says it, wherever in the chain that is.
    if why.contains("Permission denied") {
        return no_admin(why);
    }
    let cause = "The agent does not start with this configuration.";
    Check::failed(
        TEST,
        why,
        cause,
        "Correct it: all keys, with a line each, are in deploy/agent.toml and in 'branchline agent --help'.",
    )
}

/// The agent answers admins. Clients come by the gateway.
async fn running(state_dir: &Path, gateway: SocketAddr) -> Check {
    let status = Target::state_dir(state_dir).json::<Status>("/api/v1/status").await;
    let about =
        status.map(|it| format!("version {}, site {}, up for {} s", it.version, it.site, it.uptime_s));
    let about = about.unwrap_or_else(|error| error.to_string());
    let seen = match Target::gateway(gateway).get("/healthz", &[]).await {
        Ok(_) => return Check::passed(TEST, format!("runs, {about}; its gateway answers at {gateway}")),
        Err(error) => format!("runs, {about}; {}", without_hint(&error)),
    };
    let cause = format!(
        "The agent's gateway is not at {gateway}, or a firewall on this machine keeps clients from it."
    );
    let remedy = "Give the doctor the agent's --gateway or --config; clients need the same address.";
    Check::failed(TEST, seen, cause, remedy)
}

/// Something answers at the socket.
fn is_there(error: &anyhow::Error) -> bool {
    !["no agent answers", "you may not use"].iter().any(|begin| error.to_string().starts_with(begin))
}

fn of_no_use(error: &anyhow::Error) -> Check {
    let seen = format!("an agent is there, and examines nothing: {error:#}");
    let cause = "It hangs, or is of another version than this command.";
    Check::failed(TEST, seen, cause, "Look into its log, and start it again: 'systemctl restart branchline'.")
}

fn no_admin(seen: String) -> Check {
    Check::failed(TEST, seen, "You are no admin of this machine.", "Run 'sudo branchline doctor'.")
}

/// No agent answers: why.
fn silent(
    state_dir: &Path,
    error: &anyhow::Error,
    resolved: Option<&anyhow::Error>,
    has_file: bool,
) -> Check {
    let seen = without_hint(error);
    if seen.contains("you may not use") {
        return no_admin(seen);
    }
    let cause = format!("No agent runs with the state directory {}.", state_dir.display());
    let start = "Start it: 'systemctl start branchline', or 'branchline agent'; its log says why if it does not stay.";
    match resolved {
        Some(error) if has_file => unreadable(error),
        Some(_) => {
            let more = "Give the doctor the agent's --config or its flags to have the rest tried.";
            Check::failed(TEST, seen, cause, format!("{start} {more}"))
        }
        None => Check::failed(TEST, seen, cause, start),
    }
}

/// What happened, without what other commands say to do about it.
fn without_hint(error: &anyhow::Error) -> String {
    let text = error.to_string();
    text.split_once("; is the agent running?").map_or(text.clone(), |(said, _)| said.to_owned())
}

fn text(checkup: &Checkup) -> String {
    let mut rows = Vec::new();
    // Hosts and addresses are as other machines say them.
    let mut row = |cells: [&str; 3]| rows.push(cells.map(escape::terminal).to_vec());
    for check in &checkup.checks {
        let state = match check.state {
            State::Passed => "ok",
            State::Failed => "FAILED",
            State::Skipped => "skipped",
        };
        row([&check.test, state, &check.seen]);
        for (name, said) in [("cause", &check.cause), ("do", &check.remedy)] {
            if let Some(said) = said {
                row(["", name, said]);
            }
        }
    }
    for fault in &checkup.faults {
        row(["besides", "", &format!("{}: {}", fault.title, fault.cause)]);
        row(["", "do", &fault.remedy]);
    }
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_an_agent_the_cause_is_the_first_thing_that_is_missing() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("agent.toml");
        std::fs::write(&file, "sit = \"berlin\"\n").expect("room");
        let state_dir = dir.path().display().to_string();
        let flags = || config::from_flags(&["--state-dir", &state_dir]);
        let found = examine(Some(file.clone()), flags()).await;
        assert_eq!(found.checks.len(), 1, "one cause");
        assert!(found.checks[0].seen.contains("did you mean site?"), "{found:?}");
        std::fs::write(&file, "site = \"berlin\"\n").expect("room");
        let found = examine(Some(file), flags()).await;
        assert!(found.checks[0].seen.contains("--site-key FILE"), "{found:?}");
        let said = text(&found);
        assert!(said.starts_with("agent  FAILED") && said.contains("\n       do"), "{said}");
    }
}
