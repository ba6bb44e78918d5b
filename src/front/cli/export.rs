//! `branchline export`: packages as one file, from the origin or from the local agent.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use hyper::{Request, StatusCode};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;
use url::form_urlencoded;

use super::Output;
use super::client::{Admin, facts, refusal};
use crate::core::bitrate::{Rate, Size};
use crate::core::bundle::{Contents, Pieces, Reader, Step};
use crate::core::id::Version;
use crate::core::orders::Selector;
use crate::front::passing::is_regular;
use crate::node::media::Written;
use crate::origin::bundle::{Choice, Plan};
use crate::origin::{Address, Origin};

/// Pieces that wait for the disk.
const QUEUE: usize = 16;
/// How often is looked how much was written.
const OFTEN: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(super) struct Export {
    /// NAME, NAME@VERSION or NAME@CHANNEL
    #[arg(required = true)]
    packages: Vec<Selector>,
    /// Where to write it, '-' for standard output [default: NAME.bundle, or packages.bundle]
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Leave out what an older version has: VERSION, or NAME@VERSION where there are several packages
    #[arg(long, value_name = "VERSION")]
    since: Vec<String>,
    /// Read from this origin and not from the local agent: its folder, its address, or s3://BUCKET/PREFIX
    #[arg(long, requires = "trust", value_name = "URL_OR_DIR")]
    origin: Option<Address>,
    /// That origin's root of trust
    #[arg(long, requires = "origin", value_name = "ROOT.json")]
    trust: Option<PathBuf>,
    #[command(flatten)]
    admin: Admin,
    #[command(flatten)]
    output: Output,
}

/// What was exported.
#[derive(Debug, serde::Serialize)]
struct Exported {
    path: Option<PathBuf>,
    #[serde(flatten)]
    bundle: Written,
    seconds: f64,
}

type Pending = BoxStream<'static, anyhow::Result<Bytes>>;

impl Export {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let began = Instant::now();
        let choices = self.choices()?;
        let target = self.target();
        if target.as_os_str() == "-" && std::io::stdout().is_terminal() {
            bail!("a bundle is not for a terminal: give -o FILE, or pipe it somewhere");
        }
        let output = Sink::new(&target)?;
        let (bundle, output) = match (&self.origin, &self.trust) {
            (Some(origin), Some(trust)) => from_origin(origin, trust, &choices, output).await?,
            _ => match output.file() {
                Some(file) => (self.have_written(&choices, file).await?, output),
                None => write(self.ask_agent(&choices).await?, output).await?,
            },
        };
        let path = (target.as_os_str() != "-").then(|| target.clone());
        tokio::task::spawn_blocking(move || output.keep(&target)).await??;
        self.tell(&Exported { path, bundle, seconds: began.elapsed().as_secs_f64() })
    }

    fn choices(&self) -> anyhow::Result<Vec<Choice>> {
        let mut choices: Vec<Choice> =
            self.packages.iter().map(|package| Choice { package: package.clone(), since: None }).collect();
        for since in &self.since {
            let (name, version) = match since.split_once('@') {
                Some((name, version)) => (Some(name), version),
                None if choices.len() == 1 => (None, &**since),
                None => bail!("with several packages, say of which --since {since} is: --since NAME@{since}"),
            };
            let version: Version = version.parse()?;
            let mut of =
                choices.iter_mut().filter(|it| name.is_none_or(|name| it.package.name.as_str() == name));
            let choice =
                of.next().with_context(|| format!("--since {since} is of no package that is exported"))?;
            choice.since = Some(version);
        }
        Ok(choices)
    }

    fn target(&self) -> PathBuf {
        let name = match &self.packages[..] {
            [one] => one.to_string().replace('@', "-"),
            _ => "packages".to_owned(),
        };
        self.file.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.bundle")))
    }

    /// Has the agent write the bundle into a file that is open here.
    async fn have_written(&self, choices: &[Choice], file: File) -> anyhow::Result<Written> {
        let watched = file.try_clone()?;
        let request = Request::get(format!("{}&file", path(choices)));
        facts(watch(&watched, self.admin.hand_over(request, file)).await??).await
    }

    async fn ask_agent(&self, choices: &[Choice]) -> anyhow::Result<Pending> {
        let response = self.admin.get(&path(choices)).await?;
        if response.status() != StatusCode::OK {
            bail!("{}", refusal(response).await);
        }
        let broke = "the agent's answer broke off; its log says why";
        let stream = response.into_body().into_data_stream();
        Ok(stream.map_err(move |error| anyhow::Error::new(error).context(broke)).boxed())
    }

    fn tell(&self, exported: &Exported) -> anyhow::Result<()> {
        if self.output.json && exported.path.is_some() {
            return super::print_json(exported);
        }
        let names: Vec<String> = exported
            .bundle
            .packages
            .iter()
            .map(|it| match &it.since {
                Some(since) => format!("{} without what {since} has", it.package),
                None => it.package.clone(),
            })
            .collect();
        let rate = Rate((exported.bundle.bytes as f64 / exported.seconds.max(1e-3)) as u64);
        let line = format!(
            "{}: {} in {:.1} s, {rate}",
            names.join(", "),
            Size(exported.bundle.bytes),
            exported.seconds
        );
        match &exported.path {
            Some(path) => super::print(&format!(
                "{line}\n  {}\n  at the branch: branchline import {}",
                path.display(),
                path.file_name().unwrap_or_default().to_string_lossy()
            )),
            None => {
                eprintln!("{line}");
                Ok(())
            }
        }
    }
}

/// What an agent is asked for.
fn path(choices: &[Choice]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for Choice { package, since } in choices {
        query.append_pair("package", &package.to_string());
        if let Some(since) = since {
            query.append_pair("since", since.as_str());
        }
    }
    format!("/api/v1/admin/bundle?{}", query.finish())
}

/// Shows how a file grows while something writes to it.
async fn watch<T>(file: &File, writing: impl Future<Output = T>) -> anyhow::Result<T> {
    let style = ProgressStyle::with_template("{spinner} {bytes} {bytes_per_sec}")?;
    let bar = ProgressBar::new_spinner().with_style(style);
    let mut look = tokio::time::interval(OFTEN);
    tokio::pin!(writing);
    loop {
        tokio::select! {
            done = &mut writing => {
                bar.finish_and_clear();
                return Ok(done);
            }
            _ = look.tick() => bar.set_position(file.metadata().map_or(0, |it| it.len())),
        }
    }
}

async fn from_origin(
    origin: &Address,
    trust: &Path,
    choices: &[Choice],
    output: Sink,
) -> anyhow::Result<(Written, Sink)> {
    let trust = std::fs::read(trust).with_context(|| format!("cannot read {}", trust.display()))?;
    let plan = Plan::new(&Origin::open(origin)?, trust.into(), choices).await?;
    let (Some(folder), Some(file)) = (plan.folder(), output.file()) else {
        return write(plan.stream().map_err(Into::into).boxed(), output).await;
    };
    let (written, watched) = (Written::new(plan.length(), plan.contents()), file.try_clone()?);
    let writing = tokio::task::spawn_blocking(move || plan.write(&folder, file));
    watch(&watched, writing).await??.context("nothing was kept")?;
    Ok((written, output))
}

/// Writes a bundle down as it comes, and tells what was in it.
async fn write(mut stream: Pending, mut output: Sink) -> anyhow::Result<(Written, Sink)> {
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}")?;
    let bar = ProgressBar::new(0).with_style(style);
    let (pieces, mut queue) = mpsc::channel::<Bytes>(QUEUE);
    // On a thread of its own: what is read and hashed next does not wait for the disk.
    let writing = tokio::task::spawn_blocking(move || {
        let mut taken = Vec::with_capacity(QUEUE);
        while queue.blocking_recv_many(&mut taken, QUEUE) > 0 {
            taken.drain(..).try_for_each(|piece| output.write(&piece))?;
        }
        anyhow::Ok(output)
    });
    let mut watch = Watch::default();
    let mut bytes = 0;
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        bytes += piece.len() as u64;
        watch.see(piece.clone())?;
        let (_, all) = watch.reader.progress();
        bar.set_length(all.max(bytes));
        bar.set_position(bytes);
        if pieces.send(piece).await.is_err() {
            break; // the disk: its thread says why
        }
    }
    drop(pieces);
    let output = writing.await??;
    bar.finish_and_clear();
    let contents = watch.contents.filter(|_| watch.over).context("the bundle broke off; nothing was kept")?;
    Ok((Written::new(bytes, &contents), output))
}

/// Reads along: what is in the bundle, and whether all of it came.
#[derive(Default)]
struct Watch {
    reader: Reader,
    pieces: Pieces,
    skip: usize,
    contents: Option<Contents>,
    over: bool,
}

impl Watch {
    fn see(&mut self, piece: Bytes) -> anyhow::Result<()> {
        self.pieces.push(piece);
        loop {
            self.skip -= self.pieces.take(self.skip.min(self.pieces.len())).len();
            if self.over || self.skip > 0 || self.pieces.len() < self.reader.wants() {
                return Ok(());
            }
            match self.reader.take(self.pieces.take(self.reader.wants()))? {
                Step::Contents(contents) => self.contents = Some(contents),
                Step::Run(run) => self.skip = run.length as usize,
                Step::End => self.over = true,
                _ => {}
            }
        }
    }
}

/// Where a bundle is written to. A file appears whole or not at all.
enum Sink {
    File(tempfile::NamedTempFile),
    Stdout(std::io::Stdout),
}

impl Sink {
    fn new(target: &Path) -> anyhow::Result<Self> {
        if target.as_os_str() == "-" {
            return Ok(Self::Stdout(std::io::stdout()));
        }
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new("."));
        let draft = tempfile::Builder::new().prefix(".branchline-").tempfile_in(folder);
        Ok(Self::File(draft.with_context(|| format!("cannot write to {}", folder.display()))?))
    }

    /// The file, if it is one in which any place can be written to.
    fn file(&self) -> Option<File> {
        let file = match self {
            Self::File(draft) => draft.as_file().try_clone().ok()?,
            Self::Stdout(stdout) => stdout.as_fd().try_clone_to_owned().ok()?.into(),
        };
        let appends = rustix::fs::fcntl_getfl(&file).ok()?.contains(rustix::fs::OFlags::APPEND);
        (is_regular(&file) && !appends).then_some(file)
    }

    fn write(&mut self, piece: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::File(file) => {
                file.as_file_mut().write_all(piece).context("cannot write the file; nothing was kept")
            }
            Self::Stdout(stdout) => stdout.write_all(piece).context("cannot write to standard output"),
        }
    }

    /// Makes it safe on the disk, which may be pulled out next, and gives it its name.
    fn keep(self, target: &Path) -> anyhow::Result<()> {
        match self {
            Self::File(draft) => {
                use std::os::unix::fs::PermissionsExt;
                draft.as_file().sync_all().context("cannot write the file; nothing was kept")?;
                draft.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
                draft.persist(target).with_context(|| format!("cannot write {}", target.display()))?;
                Ok(())
            }
            Self::Stdout(mut stdout) => Ok(stdout.flush()?),
        }
    }
}
