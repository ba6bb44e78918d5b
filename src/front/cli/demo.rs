//! `branchline demo`: the whole story on one machine, with real processes.
//!
//! An origin behind a limited rate, agents with their own state, a publish, a fetch by all of them
//! at the same moment, a second version as an upgrade, and the books. Nothing is left behind.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use http_body_util::BodyExt;
use tokio::process::{Child, Command};

use super::client::Target;
use super::show::table;
use crate::core::bitrate::{Rate, Size};
use crate::core::ledger::Totals;
use crate::node::report::{Savings, Status};

/// Bytes of the payload, if none is given.
const PAYLOAD: usize = 24 << 20;
/// What the second version changes: one part in so many.
const CHANGED: usize = 12;
const START: Duration = Duration::from_secs(20);

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// A file to publish [default: 24 MiB made for the purpose]
    file: Option<PathBuf>,
    /// How many agents
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=64))]
    nodes: u32,
    /// The WAN's rate
    #[arg(long, default_value = "50mbit", value_name = "RATE")]
    wan: Rate,
    /// Stay up, and print where to look
    #[arg(long)]
    keep: bool,
}

/// A stage: folders, processes, and where they listen.
struct Stage {
    program: PathBuf,
    dir: tempfile::TempDir,
    children: Vec<Child>,
    origin: SocketAddr,
    gateways: Vec<SocketAddr>,
}

/// A port that is free at the moment.
fn free_port() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("this machine has no free port")?;
    Ok(listener.local_addr()?)
}

impl Demo {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut stage = Stage::new()?;
        let result = tokio::select! {
            result = self.play(&mut stage) => result,
            () = super::agent::stop_signal() => Err(anyhow::anyhow!("interrupted")),
        };
        stage.strike().await;
        result
    }

    async fn play(&self, stage: &mut Stage) -> anyhow::Result<()> {
        let (first, second) = self.payloads(stage)?;
        let size = std::fs::metadata(&first)?.len();
        say(&format!("1. An origin behind a WAN of {}, and {} agents of one site.", self.wan, self.nodes))?;
        stage.origin(self.wan).await?;
        let published = stage.publish(&first, "1.0").await?;
        say(&format!("2. Published demo@1.0, {}: {published}", Size(size)))?;
        stage.agents(self.nodes).await?;
        let direct = stage.direct(&first).await?;
        say(&format!("   One machine alone downloads it from there in {:.1} s.", direct.as_secs_f64()))?;
        say(&format!("3. All {} fetch it at the same moment:", self.nodes))?;
        let cold = stage.fetch_all("1.0", size).await?;
        self.show(&cold, size, Some(direct))?;
        let published = stage.publish(&second, "1.1").await?;
        let size = std::fs::metadata(&second)?.len();
        say(&format!("4. Published demo@1.1, which changes a twelfth: {published}"))?;
        say("   All fetch the upgrade:")?;
        let upgrade = stage.fetch_all("1.1", size).await?;
        self.show(&upgrade, size, None)?;
        let wan: u64 = [&cold, &upgrade].iter().map(|round| round.totals.wan_wire).sum();
        let without = u64::from(self.nodes) * 2 * size;
        say(&format!(
            "\nIn all, {} crossed the WAN instead of {}: {:.0} % saved. Every file was verified.",
            Size(wan),
            Size(without),
            100.0 * (1.0 - wan as f64 / without as f64)
        ))?;
        if self.keep {
            self.stay(stage).await?;
        }
        Ok(())
    }

    /// The two versions to publish.
    fn payloads(&self, stage: &Stage) -> anyhow::Result<(PathBuf, PathBuf)> {
        let first = match &self.file {
            Some(file) => std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?,
            None => noise(b"demo", PAYLOAD),
        };
        let mut second = first.clone();
        let middle = second.len() / 2..second.len() / 2 + second.len() / CHANGED;
        let change = noise(b"change", middle.len());
        second[middle].copy_from_slice(&change);
        let paths = ["payload-1.0", "payload-1.1"].map(|name| stage.dir.path().join("tree").join(name));
        std::fs::create_dir_all(stage.dir.path().join("tree"))?;
        std::fs::write(&paths[0], first).context("no room for the demo's files")?;
        std::fs::write(&paths[1], second).context("no room for the demo's files")?;
        let [first, second] = paths;
        Ok((first, second))
    }

    fn show(&self, round: &Round, size: u64, direct: Option<Duration>) -> anyhow::Result<()> {
        let without = u64::from(self.nodes) * size;
        let row = |cells: [String; 3]| cells.to_vec();
        let mut rows = vec![
            row(["".into(), "with Branchline".into(), "without".into()]),
            row(["over the WAN".into(), Size(round.totals.wan_wire).to_string(), Size(without).to_string()]),
            row([
                "from neighbours".into(),
                Size(round.totals.peer + round.totals.preloaded_peer).to_string(),
                "0 B".into(),
            ]),
            row(["held already".into(), Size(round.reused(size, self.nodes)).to_string(), "0 B".into()]),
        ];
        if let Some(direct) = direct {
            let alone = direct.as_secs_f64() * f64::from(self.nodes);
            rows.push(row([
                "last one done after".into(),
                format!("{:.1} s", round.last.as_secs_f64()),
                format!("{alone:.1} s"),
            ]));
        }
        let text = table(&rows).lines().map(|line| format!("     {line}")).collect::<Vec<_>>().join("\n");
        say(&text)
    }

    async fn stay(&self, stage: &Stage) -> anyhow::Result<()> {
        say("\nIt stays up. Look at:")?;
        for gateway in &stage.gateways {
            say(&format!("     http://{gateway}/"))?;
        }
        let gateway = stage.gateways[0];
        say(&format!("     branchline savings --scope site --gateway {gateway}"))?;
        say(&format!("     branchline get demo -o /tmp/demo --gateway {gateway}\nCtrl-C ends it."))?;
        std::future::pending().await
    }
}

fn say(text: &str) -> anyhow::Result<()> {
    super::print(text)
}

fn noise(seed: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(seed).finalize_xof().fill(&mut bytes);
    bytes
}

/// What a fetch by all agents came to.
struct Round {
    totals: Totals,
    last: Duration,
}

impl Round {
    fn reused(&self, size: u64, nodes: u32) -> u64 {
        let came =
            self.totals.wan + self.totals.peer + self.totals.preloaded_wan + self.totals.preloaded_peer;
        (u64::from(nodes) * size).saturating_sub(came)
    }
}

impl Stage {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            program: std::env::current_exe().context("this program cannot find itself")?,
            dir: tempfile::Builder::new().prefix("branchline-demo-").tempdir()?,
            children: Vec::new(),
            origin: free_port()?,
            gateways: Vec::new(),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs this program to its end.
    async fn run(&self, arguments: &[&std::ffi::OsStr]) -> anyhow::Result<String> {
        let output = Command::new(&self.program).args(arguments).output().await?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts this program in the background; it dies with the demo.
    fn start(&mut self, name: &str, arguments: &[&std::ffi::OsStr]) -> anyhow::Result<()> {
        let log = std::fs::File::create(self.path(&format!("{name}.log")))?;
        let child = Command::new(&self.program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        self.children.push(child);
        Ok(())
    }

    async fn origin(&mut self, wan: Rate) -> anyhow::Result<()> {
        let (tree, keys, site_key) = (self.path("tree"), self.path("keys"), self.path("site.key"));
        let os = std::ffi::OsStr::new;
        self.run(&[os("origin"), os("init"), os("--root"), tree.as_os_str(), os("--keys"), keys.as_os_str()])
            .await?;
        self.run(&[os("site"), os("keygen"), site_key.as_os_str()]).await?;
        let (listen, limit) = (self.origin.to_string(), format!("{}B/s", wan.0));
        let arguments =
            ["origin", "serve", "--listen", &listen, "--limit", &limit, "--root"].map(std::ffi::OsStr::new);
        self.start("origin", &[&arguments[..], &[tree.as_os_str()]].concat())
    }

    async fn publish(&self, file: &Path, version: &str) -> anyhow::Result<String> {
        let (tree, keys) = (self.path("tree"), self.path("keys"));
        let flags = ["--name", "demo", "--version", version, "--channel", "stable", "--json", "--origin"];
        let flags = flags.map(std::ffi::OsStr::new);
        let os = std::ffi::OsStr::new;
        let arguments = [
            &[os("publish"), file.as_os_str()][..],
            &flags,
            &[tree.as_os_str(), os("--keys"), keys.as_os_str()],
        ];
        let receipt: serde_json::Value = serde_json::from_str(&self.run(&arguments.concat()).await?)?;
        Ok(format!("{} chunks, of which {} are new", receipt["chunks"], receipt["new_chunks"]))
    }

    async fn agents(&mut self, count: u32) -> anyhow::Result<()> {
        let first = free_port()?;
        let root = self.path("tree").join("catalog").join("root.json");
        let origin = format!("http://{}", self.origin);
        for index in 0..count {
            let name = format!("agent-{}", index + 1);
            let listen = if index == 0 { first } else { free_port()? }.to_string();
            let gateway = free_port()?;
            let peer = format!("/ip4/127.0.0.1/tcp/{}", first.port());
            let (state, key) = (self.path(&name), self.path("site.key"));
            let gateway_text = gateway.to_string();
            let flags = [
                "agent",
                "--site",
                "demo",
                "--origin",
                &origin,
                "--listen",
                &listen,
                "--gateway",
                &gateway_text,
                "--peer",
                &peer,
                "--no-mdns",
                "--catalog-interval",
                "1",
                "--disk-reserve",
                "0",
                "--trust",
            ];
            let flags = flags.map(std::ffi::OsStr::new);
            let os = std::ffi::OsStr::new;
            let rest =
                [root.as_os_str(), os("--site-key"), key.as_os_str(), os("--state-dir"), state.as_os_str()];
            self.start(&name, &[&flags[..], &rest].concat())?;
            self.gateways.push(gateway);
        }
        self.wait_for_site(count).await
    }

    /// Until every agent sees all others.
    async fn wait_for_site(&mut self, count: u32) -> anyhow::Result<()> {
        let start = Instant::now();
        for gateway in self.gateways.clone() {
            loop {
                let status = Target::gateway(gateway).json::<Status>("/api/v1/status").await;
                if status.is_ok_and(|status| status.ready && status.members as u32 + 1 == count) {
                    break;
                }
                if start.elapsed() > START {
                    bail!("an agent did not start; its log says:\n{}", self.last_words());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// The ends of the logs.
    fn last_words(&self) -> String {
        let mut words = String::new();
        for index in 1..=self.gateways.len() {
            let text = std::fs::read_to_string(self.path(&format!("agent-{index}.log"))).unwrap_or_default();
            let end: Vec<&str> = text.lines().rev().take(3).collect();
            words =
                format!("{words}agent {index}: {}\n", end.into_iter().rev().collect::<Vec<_>>().join("\n  "));
        }
        words
    }

    /// What one machine needs that downloads the plain file.
    async fn direct(&self, file: &Path) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let response = Target::gateway(self.origin).get(&format!("/{name}"), &[]).await?;
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            frame?;
        }
        Ok(start.elapsed())
    }

    async fn totals(&self) -> anyhow::Result<Totals> {
        let mut sum = Totals::default();
        for gateway in &self.gateways {
            sum.add(&Target::gateway(*gateway).json::<Savings>("/api/v1/savings").await?.totals);
        }
        Ok(sum)
    }

    /// All agents' clients ask at the same moment.
    async fn fetch_all(&self, version: &str, size: u64) -> anyhow::Result<Round> {
        let before = self.totals().await?;
        let start = Instant::now();
        let fetches = self.gateways.iter().enumerate().map(|(index, gateway)| {
            let (output, gateway) = (self.path(&format!("got-{index}")), gateway.to_string());
            let package = format!("demo@{version}");
            async move {
                let os = std::ffi::OsStr::new;
                let arguments =
                    [os("get"), os(&package), os("--gateway"), os(&gateway), os("-o"), output.as_os_str()];
                self.run(&arguments).await?;
                anyhow::ensure!(std::fs::metadata(&output)?.len() == size, "a client got another file");
                Ok(())
            }
        });
        futures::future::try_join_all(fetches).await?;
        let last = start.elapsed();
        let after = self.totals().await?;
        Ok(Round { totals: after.since(&before), last })
    }

    /// Ends all processes; the folder goes with the stage.
    async fn strike(mut self) {
        for child in &mut self.children {
            child.start_kill().ok();
        }
        for child in &mut self.children {
            child.wait().await.ok();
        }
    }
}
