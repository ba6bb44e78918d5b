//! `branchline doctor`: tries what the agent depends on, and names one cause for what fails.
//!
//! Each test is a file. What one test has found is not found again by those that build on it: they are
//! skipped, and say why.

pub mod before;
mod clock;
mod discovery;
mod disk;
mod origin;
mod ports;
mod transfer;
mod upstreams;

use std::time::{Duration, Instant};

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::Node;
use super::report::{Fault, Severity};
use crate::core::lapse::Lapse;
pub(super) use clock::CLOCK;
pub(super) use ports::KNOCK;
pub(super) use transfer::{SAMPLE, give as give_sample};

/// An examination serves all who ask for it within so long: any user of this machine may.
const REUSED: Duration = Duration::from_secs(10);
/// Faults of the node's health that the tests find by themselves.
const TESTED: [&str; 5] =
    ["alone", "catalog_not_refreshed", "disk_nearly_full", "origin_not_reached", "wan_clocks_differ"];

/// What an examination has found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkup {
    /// One for each test, in the order in which they build on each other.
    pub checks: Vec<Check>,
    /// What is wrong besides, as the node itself has noticed.
    #[serde(default)]
    pub faults: Vec<Fault>,
}

/// How a test has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It works.
    Passed,
    /// It does not.
    Failed,
    /// It could not be tried.
    Skipped,
}

/// What a test has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was tried, for programs: one word that does not change.
    pub test: String,
    /// How it has ended.
    pub state: State,
    /// What was seen; of a skipped one, why.
    pub seen: String,
    /// Of a failed one, why: one cause.
    pub cause: Option<String>,
    /// Of a failed one, what to do.
    pub remedy: Option<String>,
}

impl Check {
    fn new(test: &str, state: State, seen: impl Into<String>) -> Self {
        Self { test: test.to_owned(), state, seen: seen.into(), cause: None, remedy: None }
    }

    /// It works.
    pub fn passed(test: &str, seen: impl Into<String>) -> Self {
        Self::new(test, State::Passed, seen)
    }

    /// It could not be tried.
    pub fn skipped(test: &str, why: impl Into<String>) -> Self {
        Self::new(test, State::Skipped, why)
    }

    /// It does not work.
    pub fn failed(
        test: &str,
        seen: impl Into<String>,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (cause, remedy) = (Some(cause.into()), Some(remedy.into()));
        Self { cause, remedy, ..Self::new(test, State::Failed, seen) }
    }
}

/// The last examination, one at a time.
#[derive(Debug, Default)]
pub(super) struct Doctor {
    last: Mutex<Option<(Instant, Checkup)>>,
}

impl Node {
    /// Tries what this agent depends on: some seconds, and a few MiB from its neighbours.
    pub async fn checkup(&self) -> Checkup {
        let mut last = self.inner.doctor.last.lock().await;
        match &*last {
            Some((at, checkup)) if at.elapsed() < REUSED => checkup.clone(),
            _ => {
                let checkup = self.examine_all().await;
                *last = Some((Instant::now(), checkup.clone()));
                checkup
            }
        }
    }

    async fn examine_all(&self) -> Checkup {
        let company = async {
            let census = discovery::take(self).await;
            let (discovery, ports) = (discovery::check(self, &census), ports::check(self, &census).await);
            (ports, discovery)
        };
        let far = async {
            let asked = origin::ask(self).await;
            (asked, clock::check(self).await)
        };
        let ((ports, discovery), (asked, clock), disk, upstreams) =
            tokio::join!(company, far, disk::check(self), upstreams::check(self));
        let origin = origin::verdict(asked, &disk, &clock).await;
        let transfer = transfer::check(self).await;
        let checks = [ports, discovery, clock, disk, origin].into_iter().chain(upstreams).chain([transfer]);
        let mut faults = self.health().await.faults;
        faults.retain(|it| it.severity != Severity::Info && !TESTED.contains(&it.id.as_str()));
        Checkup { checks: checks.collect(), faults }
    }
}

/// Some machines by name, for people.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// How far clocks are apart, for people.
fn apart(by: SignedDuration) -> String {
    Lapse::from(by.unsigned_abs()).to_string()
}
