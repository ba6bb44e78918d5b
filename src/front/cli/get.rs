//! `branchline get`: fetch a package, verified, with progress.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Response, StatusCode, header};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use super::client::{Target, refusal};
use super::explain::explain;
use crate::core::bitrate::{Rate, Size};
use crate::core::ledger::Totals;
use crate::node::report::Savings;

/// A broken line to the agent is taken up again so often: it may be restarting.
const TRIES: u32 = 20;
const WAIT: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(super) struct Get {
    /// NAME, NAME@VERSION or NAME@CHANNEL
    package: String,
    /// Where to write it, '-' for standard output [default: NAME-VERSION]
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Print what was fetched, and from where, as JSON
    #[arg(long)]
    json: bool,
    /// Let clients that wait go first on the WAN
    #[arg(long)]
    background: bool,
    /// Go through a closed WAN window
    #[arg(long, conflicts_with = "background")]
    urgent: bool,
    /// If the WAN is closed, wait until it opens
    #[arg(long)]
    wait: bool,
    /// Say by which way it came over the WAN, and what else was weighed
    #[arg(long, conflicts_with = "json")]
    explain: bool,
    #[command(flatten)]
    target: Target,
}

/// What was fetched.
#[derive(Debug, serde::Serialize)]
struct Fetched {
    package: String,
    version: String,
    path: Option<PathBuf>,
    size: u64,
    blake3: String,
    sha256: String,
    seconds: f64,
}

/// Where the bytes go, and what they add up to.
struct Sink {
    file: Option<File>,
    draft: Option<tempfile::TempPath>,
    hasher: blake3::Hasher,
    written: u64,
    /// One for all: each handle writes on a thread of its own, and two of them out of order.
    stdout: tokio::io::Stdout,
}

impl Get {
    /// By RFC 9218.
    fn priority(&self) -> Vec<(header::HeaderName, String)> {
        let urgency = match (self.background, self.urgent) {
            (true, _) => "u=7",
            (_, true) => "u=0",
            _ => return Vec::new(),
        };
        vec![(header::HeaderName::from_static("priority"), urgency.to_owned())]
    }

    /// Asks; if the WAN is closed and that is wanted, says so and waits.
    async fn ask(
        &self,
        path: &str,
        headers: &[(header::HeaderName, String)],
    ) -> anyhow::Result<Response<Incoming>> {
        let response = self.target.get(path, headers).await?;
        if !self.wait || !is_closed(&response) {
            return Ok(response);
        }
        eprintln!("{}; waiting until it opens", refusal(response).await);
        let wait = (header::HeaderName::from_static("prefer"), "wait=86400".to_owned());
        self.target.get(path, &[headers, &[wait]].concat()).await
    }

    pub(super) async fn run(self) -> anyhow::Result<()> {
        let (name, version) = match self.package.split_once('@') {
            Some((name, version)) => (name, Some(version)),
            None => (self.package.as_str(), None),
        };
        // Checked here, so that a name with a slash is refused and not taken for another path.
        name.parse::<crate::core::id::PackageName>()?;
        if let Some(version) = version {
            version.parse::<crate::core::id::Version>()?;
        }
        let start = Instant::now();
        let before = self.totals(name).await;
        let path =
            format!("/packages/{name}{}", version.map(|version| format!("/{version}")).unwrap_or_default());
        let mut response = self.ask(&path, &self.priority()).await?;
        if response.status() != StatusCode::OK {
            bail!("{}", refusal(response).await);
        }
        let text = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.map(str::to_owned).with_context(|| format!("the agent's answer has no {name}"))
        };
        let (version, sha256) = (text("branchline-version")?, text("branchline-sha256")?);
        let etag = text("etag")?;
        let size: u64 = text("content-length")?.parse()?;
        let target = self.output.clone().unwrap_or_else(|| PathBuf::from(format!("{name}-{version}")));
        let mut sink = Sink::new(&target).await?;
        let bar = self.bar(size)?;
        // From here on the version is fixed, whatever its channel does.
        let path = format!("/packages/{name}/{version}");
        let mut tries = 0;
        while let Err(error) = sink.take(response, &bar).await {
            response = loop {
                tries += 1;
                if tries > TRIES {
                    return Err(error.context("the line to the agent keeps breaking"));
                }
                tokio::time::sleep(WAIT).await;
                let range = format!("bytes={}-", sink.written);
                let mut headers = self.priority();
                headers.extend([(header::RANGE, range), (header::IF_RANGE, etag.clone())]);
                match self.ask(&path, &headers).await {
                    Ok(response) if response.status() == StatusCode::PARTIAL_CONTENT => break response,
                    Ok(response) if response.status().is_client_error() || is_closed(&response) => {
                        bail!("{}", refusal(response).await)
                    }
                    _ => {}
                }
            };
        }
        bar.finish_and_clear();
        let blake3 = sink.hasher.finalize().to_hex().to_string();
        if etag.trim_matches('"') != blake3 || sink.written != size {
            bail!(
                "what arrived is not {name}@{version} (its hash is {blake3}); nothing was kept. Is something between this program and the agent?"
            );
        }
        sink.keep(&target)?;
        let fetched = Fetched {
            package: name.to_owned(),
            version,
            path: (target.as_os_str() != "-").then_some(target),
            size,
            blake3,
            sha256,
            seconds: start.elapsed().as_secs_f64(),
        };
        self.tell(&fetched, before).await
    }

    async fn totals(&self, name: &str) -> Option<Totals> {
        let savings: Savings = self.target.json("/api/v1/savings?by=package").await.ok()?;
        let prefix = format!("{name}@");
        let mut sum = Totals::default();
        let rows = savings.rows.iter().filter(|row| row.about.as_str().starts_with(&prefix));
        rows.for_each(|row| sum.add(&row.totals));
        Some(sum)
    }

    fn bar(&self, size: u64) -> anyhow::Result<ProgressBar> {
        let style =
            ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}")?;
        let bar = ProgressBar::new(size).with_style(style);
        if bar.is_hidden() {
            return Ok(bar);
        }
        // Where the bytes come from, as the agent books them.
        let (target, shown) = (self.target.clone(), bar.clone());
        tokio::spawn(async move {
            let mut first = None;
            while !shown.is_finished() {
                if let Ok(savings) = target.json::<Savings>("/api/v1/savings").await {
                    let first = *first.get_or_insert(savings.totals);
                    shown.set_message(sources(&first, &savings.totals));
                }
                tokio::time::sleep(WAIT).await;
            }
        });
        Ok(bar)
    }

    async fn tell(&self, fetched: &Fetched, before: Option<Totals>) -> anyhow::Result<()> {
        if self.json {
            return super::print_json(fetched);
        }
        let after = self.totals(&fetched.package).await;
        let from = before.zip(after).map(|(before, after)| format!(" ({})", sources(&before, &after)));
        let rate = Rate((fetched.size as f64 / fetched.seconds.max(1e-3)) as u64);
        // With the payload on standard output, words go to standard error.
        let line = format!(
            "{}@{}: {} in {:.1} s, {rate}{}, verified",
            fetched.package,
            fetched.version,
            Size(fetched.size),
            fetched.seconds,
            from.unwrap_or_default(),
        );
        let explained = match self.explain {
            true => format!("\n{}", explain(&self.target, &fetched.package, &fetched.version).await?),
            false => String::new(),
        };
        match &fetched.path {
            Some(path) => super::print(&format!("{line}\n  {}{explained}", path.display())),
            None => {
                eprintln!("{line}{explained}");
                Ok(())
            }
        }
    }
}

/// The agent says when to try again: the WAN is closed.
fn is_closed(response: &Response<Incoming>) -> bool {
    response.status() == StatusCode::SERVICE_UNAVAILABLE
        && response.headers().contains_key(header::RETRY_AFTER)
}

fn sources(before: &Totals, after: &Totals) -> String {
    let since = |field: fn(&Totals) -> u64| Size(field(after).saturating_sub(field(before)));
    let (wan, peer, local) = (since(|it| it.wan), since(|it| it.peer), since(|it| it.local));
    format!("WAN {wan}, peers {peer}, local {local}")
}

impl Sink {
    async fn new(target: &std::path::Path) -> anyhow::Result<Self> {
        let hasher = blake3::Hasher::new();
        if target.as_os_str() == "-" {
            return Ok(Self { file: None, draft: None, stdout: tokio::io::stdout(), hasher, written: 0 });
        }
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| std::path::Path::new("."));
        let draft = tempfile::Builder::new().prefix(".branchline-").tempfile_in(folder);
        let draft = draft.with_context(|| format!("cannot write to {}", folder.display()))?;
        let (file, draft) = draft.into_parts();
        let file = Some(File::from_std(file));
        Ok(Self { file, draft: Some(draft), stdout: tokio::io::stdout(), hasher, written: 0 })
    }

    /// Takes what a response brings.
    async fn take(&mut self, response: Response<Incoming>, bar: &ProgressBar) -> anyhow::Result<()> {
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            let Ok(bytes) = frame.context("the answer broke off")?.into_data() else { continue };
            self.hasher.update(&bytes);
            match &mut self.file {
                Some(file) => file.write_all(&bytes).await.context("cannot write the file")?,
                None => self.stdout.write_all(&bytes).await?,
            }
            self.written += bytes.len() as u64;
            bar.set_position(self.written);
        }
        match &mut self.file {
            Some(file) => file.flush().await.context("cannot write the file"),
            None => Ok(self.stdout.flush().await?),
        }
    }

    /// Gives the file its name: it appears whole or not at all.
    fn keep(self, target: &std::path::Path) -> anyhow::Result<()> {
        let Some(draft) = self.draft else { return Ok(()) };
        use std::os::unix::fs::PermissionsExt;
        // As any other program would create it.
        std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o644))?;
        draft.persist(target).with_context(|| format!("cannot write {}", target.display()))
    }
}
