//! One run of a hook: bounded in time, in what is kept of its output, and in what it is told.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{Arrival, Config};

/// What is kept of the output: its end, in bytes.
const KEPT: usize = 8 << 10;
/// From the friendly signal to the other.
const GRACE: Duration = Duration::from_secs(5);
/// What a process that the hook has left behind still says is read for so long.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Where commands are looked for if the agent was started without a `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Exit(i32),
    Signal(i32),
    TimedOut,
    /// In words.
    NotStarted(String),
}

/// Runs it. If this is dropped, the hook and all that it has started are killed.
pub(super) async fn run(config: &Config, arrival: &Arrival) -> (End, String) {
    match start(config, arrival) {
        Ok((child, group, output)) => follow(child, group, output, config.timeout).await,
        Err(error) => {
            let program = config.command.first().map_or("", String::as_str);
            (End::NotStarted(format!("{program} could not be started: {error}")), String::new())
        }
    }
}

fn start(config: &Config, arrival: &Arrival) -> io::Result<(Child, Group, Receiver)> {
    let (output, writer) = std::io::pipe()?;
    let program = config.command.first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command
        .args(config.command.iter().skip(1))
        // The agent's own environment may hold secrets.
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH.into()))
        .envs(arrival.environment(&config.gateway))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    if let Some(user) = &config.user {
        user.apply(&mut command);
    }
    let child = command.spawn()?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    Ok((child, group, Receiver::from_owned_fd(OwnedFd::from(output))?))
}

/// The processes of a hook; killed when nobody waits for it any more.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // It may be gone already.
            kill_process_group(group, signal).ok();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

async fn follow(mut child: Child, mut group: Group, mut output: Receiver, most: Duration) -> (End, String) {
    let mut tail = Tail::default();
    let end = {
        let (read, wait) = (tail.fill(&mut output), wait(&mut child, &group, most));
        tokio::pin!(read, wait);
        let mut reads = true;
        let end = loop {
            tokio::select! {
                end = &mut wait => break end,
                () = &mut read, if reads => reads = false,
            }
        };
        if reads {
            timeout(LAST_WORDS, read).await.ok();
        }
        end
    };
    if end != End::TimedOut {
        // What it has started to run on without it may do so.
        group.0 = None;
    }
    (end, tail.text())
}

async fn wait(child: &mut Child, group: &Group, most: Duration) -> End {
    match timeout(most, child.wait()).await {
        Ok(status) => ended(status),
        Err(_) => {
            group.signal(Signal::TERM);
            timeout(GRACE, child.wait()).await.ok();
            group.signal(Signal::KILL);
            timeout(GRACE, child.wait()).await.ok();
            End::TimedOut
        }
    }
}

fn ended(status: io::Result<ExitStatus>) -> End {
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => End::Exit(code),
            (None, signal) => End::Signal(signal.unwrap_or(0)),
        },
        Err(error) => End::NotStarted(format!("its end could not be waited for: {error}")),
    }
}

/// The end of what was said.
#[derive(Default)]
struct Tail {
    bytes: VecDeque<u8>,
    left_out: bool,
}

impl Tail {
    async fn fill(&mut self, output: &mut Receiver) {
        let mut buffer = vec![0; KEPT];
        while let Ok(read @ 1..) = output.read(&mut buffer).await {
            self.bytes.extend(&buffer[..read]);
            let too_much = self.bytes.len().saturating_sub(KEPT);
            self.left_out |= too_much > 0;
            self.bytes.drain(..too_much);
        }
    }

    fn text(mut self) -> String {
        let text = String::from_utf8_lossy(self.bytes.make_contiguous()).into_owned();
        if self.left_out { format!("[...]{text}") } else { text }
    }
}
