//! A command that runs when a followed package has arrived.
//!
//! Once for each version that arrives, also across restarts: that it is to run is written down before
//! it runs, and taken out when it has ended. So one that a crash cut off runs again (at least once, not
//! exactly once). One that fails is not repeated by itself. One hook runs at a time, in the order in
//! which versions arrived. What a hook does, says or starts cannot hold this node up: see [`run`].

mod record;
mod run;
mod user;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{Notify, watch};

use super::catalog::Resolved;
use super::errands::Outcome;
use super::report::HookStatus;
use super::{Node, blocking, durable};
use crate::core::orders::Selector;
use record::Record;
pub use record::{Arrival, HookResult};
use run::End;
pub use user::HookUser;

/// What runs, as whom, and for how long.
#[derive(Debug, Clone)]
pub struct Config {
    /// The program and its arguments.
    command: Vec<String>,
    /// Whose rights it has, if not the agent's.
    user: Option<HookUser>,
    /// It is ended after so long.
    timeout: Duration,
    /// Where it reaches the gateway, as the beginning of an URL.
    gateway: String,
}

impl Config {
    /// From a command as a shell would split it, though none runs it.
    ///
    /// # Errors
    /// In words.
    pub fn new(
        command: &str,
        user: Option<&str>,
        timeout: Duration,
        gateway: String,
    ) -> Result<Self, String> {
        let words = shlex::split(command).filter(|words| words.first().is_some_and(|it| !it.is_empty()));
        let command = words.ok_or_else(|| {
            format!("hook = {command:?} is no command; write it as for a shell, with quotes that are closed")
        })?;
        if timeout.is_zero() {
            return Err(
                "hook_timeout = 0 would end every hook at once; give it some time, such as 10m".into()
            );
        }
        let user = user.map(HookUser::find).transpose()?.flatten();
        Ok(Self { command, user, timeout, gateway })
    }
}

/// All hooks of a node.
#[derive(Debug)]
pub struct Hooks {
    config: Option<Config>,
    file: PathBuf,
    record: Mutex<Record>,
    running: Mutex<Option<String>>,
    /// Something waits to be run.
    news: Notify,
    /// Counts the runs that have ended.
    ended: watch::Sender<u64>,
}

impl Hooks {
    /// Reads what was kept in a state directory.
    pub(super) fn open(state_dir: &Path, config: Option<Config>, follow: &[Selector]) -> Self {
        let file = state_dir.join("hooks.json");
        let mut record: Record = durable::read_json(&file);
        let followed: Vec<String> = follow.iter().map(ToString::to_string).collect();
        record.follow_only(&followed);
        Self {
            config,
            file,
            record: Mutex::new(record),
            running: Mutex::default(),
            news: Notify::new(),
            ended: watch::Sender::new(0),
        }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is remembered, and writes it down.
    async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Record) -> T + Send + 'static,
    ) -> Option<T> {
        let hooks = self.clone();
        let work = move || {
            // Held while it is written, so that what is written last is what is known last.
            let mut record = hooks.record();
            let done = change(&mut record);
            durable::write_json(&hooks.file, &*record);
            done
        };
        blocking(work).await
    }

    /// A version that is followed by this name is here. To be called whenever that is found: the hook
    /// runs if it has not run for it since another version was followed.
    pub async fn arrived(self: &Arc<Self>, follow: &Selector, arrival: Arrival) {
        let follow = follow.to_string();
        if self.config.is_none() || self.record().knows(&follow, &arrival) {
            return;
        }
        let label = arrival.label();
        if self.change(move |record| record.arrived(&follow, &arrival)).await == Some(true) {
            tracing::info!(package = label, "has arrived");
            self.news.notify_one();
        }
    }

    /// Runs the hook for a version, whether it has run for it or not, and waits until it has ended.
    ///
    /// # Errors
    /// In words: no hook is configured, or the agent is stopping.
    pub async fn run_again(self: &Arc<Self>, arrival: Arrival) -> Result<HookResult, String> {
        if self.config.is_none() {
            return Err("no hook is configured on this node; see 'hook' in the agent's configuration".into());
        }
        let stopping = || "the agent is stopping".to_owned();
        let mut ended = self.ended.subscribe();
        // How many have to end: those before it, and it.
        let behind = self.change(move |record| {
            let waits = record.wait_for(arrival);
            waits.then(|| record.ended + record.waiting.len() as u64)
        });
        let last = behind.await.ok_or_else(stopping)?;
        let last = last.ok_or("too many hooks wait already; see 'branchline hook list'")?;
        self.news.notify_one();
        ended.wait_for(|ended| *ended >= last).await.map_err(|_| stopping())?;
        let record = self.record();
        let later = (record.ended - last) as usize;
        record.results.iter().rev().nth(later).cloned().ok_or_else(stopping)
    }

    /// The last results, the last one first.
    pub fn results(&self) -> Vec<HookResult> {
        self.record().results.iter().rev().cloned().collect()
    }

    /// For `status`: what anybody may know.
    pub(super) fn status(&self) -> HookStatus {
        let quiet = |result: HookResult| HookResult { output: String::new(), ..result };
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let record = self.record();
        HookStatus {
            configured: self.config.is_some(),
            waiting: record.waiting.len().saturating_sub(usize::from(running.is_some())),
            running,
            last: record.results.back().cloned().map(quiet),
            failing: record.failing().into_iter().map(quiet).collect(),
        }
    }

    /// Runs what waits, one after another.
    pub(super) async fn keep(self: Arc<Self>) {
        let Some(config) = self.config.clone() else { return };
        loop {
            let next = self.record().waiting.front().cloned();
            let Some(arrival) = next else {
                self.news.notified().await;
                continue;
            };
            let result = self.run(&config, &arrival).await;
            let ended = self.change(move |record| {
                record.ended(result);
                record.ended
            });
            let Some(ended) = ended.await else { return };
            self.ended.send_replace(ended);
        }
    }

    async fn run(&self, config: &Config, arrival: &Arrival) -> HookResult {
        let set_running = |running| *self.running.lock().unwrap_or_else(PoisonError::into_inner) = running;
        set_running(Some(arrival.label()));
        let (at, begun) = (Timestamp::now(), Instant::now());
        let (end, output) = run::run(config, arrival).await;
        set_running(None);
        let mut result = HookResult {
            package: arrival.package.clone(),
            version: arrival.version.clone(),
            at: at.to_string(),
            seconds: begun.elapsed().as_secs_f64(),
            ok: end == End::Exit(0),
            output,
            ..HookResult::default()
        };
        match end {
            End::Exit(code) => result.exit_code = Some(code),
            End::Signal(signal) => result.signal = Some(signal),
            End::TimedOut => result.timed_out = true,
            End::NotStarted(error) => result.error = Some(error),
        }
        let (package, end) = (result.label(), result.end());
        match result.ok {
            true => tracing::info!(package, end, "the hook has run"),
            false => tracing::warn!(package, end, output = result.output, "the hook has failed"),
        }
        result
    }
}

impl Node {
    /// The command that runs when a followed package has arrived.
    pub fn hooks(&self) -> &Arc<Hooks> {
        &self.inner.hooks
    }

    /// Runs the hook for a package that is here, and waits for its end.
    pub async fn run_hook(&self, package: &Selector) -> Outcome {
        let outcome = match self.catalog().means(package) {
            Ok(resolved) => self.run_hook_for(Arrival::of(package, &resolved), &resolved).await,
            Err(error) => Outcome::refused(error.to_string()),
        };
        Outcome { node: self.me().to_string(), ..outcome }
    }

    async fn run_hook_for(&self, arrival: Arrival, resolved: &Resolved) -> Outcome {
        let (label, store, blob) = (resolved.label(), self.inner.store.clone(), resolved.published.blob);
        let held = blocking(move || store.list().into_iter().any(|it| it.blob == blob && it.complete)).await;
        if held != Some(true) {
            return Outcome::refused(format!(
                "{label} is not here, or not all of it; 'branchline get' fetches it"
            ));
        }
        match self.hooks().run_again(arrival).await {
            Ok(result) if result.ok => Outcome::done(format!("the hook for {label}: {}", result.end()), 0),
            Ok(result) => {
                let see = "'branchline hook list' shows what it said";
                Outcome::refused(format!("the hook for {label} {}; {see}", result.end()))
            }
            Err(why) => Outcome::refused(why),
        }
    }
}

#[cfg(test)]
mod tests;
