//! `branchline import`: reads a bundle into the local agent.
//!
//! A file is handed over: the agent reads it, and of it only the chunks that it lacks. Of what comes through a
//! pipe the beginning is sent first. The agent answers, once it has verified that, with what it holds already,
//! and of the chunks only those are sent that it lacks.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use clap::Args;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response, StatusCode};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::{mpsc, oneshot};

use super::Output;
use super::client::{Admin, refusal};
use crate::core::bitrate::{Rate, Size};
use crate::core::bundle::{BundleError, Reader, Run, Step};
use crate::core::chunkset::ChunkSet;
use crate::front::passing::is_regular;
use crate::node::media::{Imported, ImportedPackage, News};
use crate::store::Buffer;

/// Pieces that wait for the agent.
const QUEUE: usize = 4;
/// The longest line of the agent's answer, in bytes.
const LONGEST_LINE: usize = 64 << 20;

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The bundle, '-' for standard input
    file: PathBuf,
    #[command(flatten)]
    admin: Admin,
    #[command(flatten)]
    output: Output,
}

type Piece = Result<Frame<Bytes>, io::Error>;

impl Import {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let line = match Source::open(&self.file)? {
            Source::File(file) => return self.hand_over(file).await,
            Source::Line(line) => line,
        };
        let (pieces, mut queue) = mpsc::channel::<Piece>(QUEUE);
        let (tell_held, held) = oneshot::channel();
        // No task: a pipe in which nothing comes must not keep this program from ending.
        let (ended, mut reading) = oneshot::channel();
        std::thread::spawn(move || ended.send(line.read(&pieces, held)));
        let body = StreamBody::new(futures::stream::poll_fn(move |cx| queue.poll_recv(cx)));
        let response = self.admin.post("/api/v1/admin/bundle", "application/octet-stream", body);
        tokio::pin!(response);
        let response = tokio::select! {
            biased;
            response = &mut response => response?,
            // It ends before the agent answers only if the file is no bundle, or cannot be read.
            read = &mut reading => {
                read??;
                response.await?
            }
        };
        if response.status() != StatusCode::OK {
            bail!("{}", refusal(response).await);
        }
        let told = self.listen(response, tell_held).await;
        // A file that cannot be read any more is the cause, and not what the agent makes of it.
        let imported = told.map_err(|error| match reading.try_recv() {
            Ok(Err(cause)) => cause,
            _ => error,
        })?;
        self.tell(&imported)
    }

    /// Has the agent read a file that is open here.
    async fn hand_over(&self, file: File) -> anyhow::Result<()> {
        let request = Request::post("/api/v1/admin/bundle?file");
        let response = self.admin.hand_over(request, file).await?;
        if response.status() != StatusCode::OK {
            bail!("{}", refusal(response).await);
        }
        let imported = self.listen(response, oneshot::channel().0).await?;
        self.tell(&imported)
    }

    /// Reads what the agent has to say until it is done.
    async fn listen(
        &self,
        response: Response<Incoming>,
        held: oneshot::Sender<Vec<ChunkSet>>,
    ) -> anyhow::Result<Imported> {
        let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}")?;
        // Hidden where standard error is no terminal.
        let bar = ProgressBar::new(0).with_style(style);
        let (mut body, mut lines, mut held) = (response.into_body(), BytesMut::new(), Some(held));
        loop {
            while let Some(end) = lines.iter().position(|&byte| byte == b'\n') {
                let line = lines.split_to(end + 1);
                let news =
                    serde_json::from_slice(&line).context("the agent speaks another version of the API")?;
                match news {
                    News::Held(spans) => {
                        let sets = spans.iter().map(|spans| ChunkSet::from_spans(spans).unwrap_or_default());
                        held.take().map(|held| held.send(sets.collect()));
                    }
                    News::Progress { bytes, of } => {
                        bar.set_length(of);
                        bar.set_position(bytes);
                    }
                    News::Done(imported) => {
                        bar.finish_and_clear();
                        return Ok(*imported);
                    }
                }
            }
            let kept = "what was verified is kept: import the bundle again for the rest";
            let frame = body.frame().await.with_context(|| format!("the agent stopped; {kept}"))?;
            let frame = frame.with_context(|| format!("the agent stopped; {kept}"))?;
            if let Ok(data) = frame.into_data() {
                lines.extend_from_slice(&data);
            }
            if lines.len() > LONGEST_LINE {
                bail!("the agent speaks another version of the API");
            }
        }
    }

    fn tell(&self, imported: &Imported) -> anyhow::Result<()> {
        if self.output.json {
            super::print_json(imported)?;
        } else {
            super::print(&words(imported))?;
        }
        if imported.is_complete() {
            return Ok(());
        }
        let lacking = imported.packages.iter().filter(|it| it.missing_chunks > 0);
        let missing: u64 = lacking.map(|it| it.missing_bytes).sum();
        match &imported.error {
            Some(error) => bail!("{error}"),
            None => bail!(
                "{} are missing. They are fetched when somebody asks for the packages ('branchline get', 'branchline pin'), or import a bundle that has them",
                Size(missing)
            ),
        }
    }
}

/// The result for people.
fn words(imported: &Imported) -> String {
    let rate = Rate((imported.new_bytes as f64 / imported.seconds.max(1e-3)) as u64);
    let mut lines = vec![match imported.new_bytes {
        0 => format!("nothing new in {} of the bundle", Size(imported.bytes)),
        new => format!(
            "imported {} ({} in the bundle) in {:.1} s, {rate}; safe on the disk {:.1} s later",
            Size(new),
            Size(imported.bytes),
            imported.seconds,
            imported.flush_seconds
        ),
    }];
    lines.extend(imported.packages.iter().map(|package| format!("  {}", package_words(package))));
    let catalog = &imported.catalog;
    if catalog.taken_over {
        lines.push(format!("  catalog: version {}, newer than the one here, taken over", catalog.version));
    }
    lines.extend(catalog.note.as_ref().map(|note| format!("  note: {note}")));
    lines.join("\n")
}

fn package_words(it: &ImportedPackage) -> String {
    if let Some(why) = &it.refused {
        return format!("{}: not imported: {why}", it.package);
    }
    let mut parts = vec![format!("{} of {} chunks new", it.new_chunks, it.chunks)];
    for (count, what) in [(it.held_chunks, "held before"), (it.copied_chunks, "copied from other packages")] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    if it.damaged_chunks > 0 {
        parts.push(format!("{} DAMAGED in the bundle", it.damaged_chunks));
    }
    if it.missing_chunks == 0 {
        parts.push("complete".into());
    } else {
        parts.push(format!(
            "INCOMPLETE: {} in {} chunks are missing",
            Size(it.missing_bytes),
            it.missing_chunks
        ));
        if let Some(since) = &it.since {
            parts.push(format!("the bundle leaves out what version {since} has, which is not all here"));
        }
    }
    format!("{}: {}", it.package, parts.join(", "))
}

/// Where the bundle comes from.
enum Source {
    /// A file, which the agent reads itself.
    File(File),
    /// What can only be read in its order: a pipe, a tape.
    Line(Line),
}

impl Source {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let stdin = path.as_os_str() == "-";
        if stdin && io::stdin().is_terminal() {
            bail!("a bundle is not typed: give a file, or pipe it in");
        }
        let name = if stdin { "standard input".to_owned() } else { path.display().to_string() };
        let file = match stdin {
            true => io::stdin().as_fd().try_clone_to_owned().map(File::from),
            false => File::open(path),
        };
        let file = file.with_context(|| format!("cannot open {name}"))?;
        Ok(if is_regular(&file) { Self::File(file) } else { Self::Line(Line { input: file, name }) })
    }
}

/// A bundle that is read here, and sent.
struct Line {
    input: File,
    name: String,
}

impl Line {
    /// Reads the bundle and sends what the agent lacks. What is wrong with it behind its beginning is sent
    /// as it is: the agent says what that means.
    fn read(
        mut self,
        pieces: &mpsc::Sender<Piece>,
        held: oneshot::Receiver<Vec<ChunkSet>>,
    ) -> anyhow::Result<()> {
        let mut reader = Reader::default();
        let mut beginning = Vec::new();
        while !reader.is_past_manifests() {
            let bytes = self.bytes(reader.wants())?;
            beginning.extend_from_slice(&bytes);
            reader.take(bytes)?;
        }
        let send = |bytes: Bytes| pieces.blocking_send(Ok(Frame::data(bytes))).is_ok();
        if !send(beginning.into()) {
            return Ok(());
        }
        // The agent refuses it, and says why, or is gone.
        let Ok(held) = held.blocking_recv() else { return Ok(()) };
        match self.read_runs(&mut reader, &held, send) {
            Ok(()) => Ok(()),
            Err(error) => {
                let text = format!("cannot read {}: {error}", self.name);
                pieces.blocking_send(Err(io::Error::new(error.kind(), text.clone()))).ok();
                bail!("{text}; what was verified is kept: import the bundle again for the rest")
            }
        }
    }

    fn read_runs(
        &mut self,
        reader: &mut Reader,
        held: &[ChunkSet],
        send: impl Fn(Bytes) -> bool,
    ) -> io::Result<()> {
        loop {
            let bytes = self.bytes(reader.wants())?;
            let step: Result<Step, BundleError> = reader.take(bytes.clone());
            match step {
                Ok(Step::Run(run)) if holds(held, &run) => {
                    let payload = &mut (&self.input).take(run.length.into());
                    if io::copy(payload, &mut io::sink())? < u64::from(run.length)
                        || !send(Bytes::copy_from_slice(&run.held()))
                    {
                        return Ok(());
                    }
                }
                Ok(Step::Run(run)) => {
                    let mut payload = Buffer::of(run.length as usize);
                    let came = fill(&mut self.input, &mut payload)?;
                    let payload = Bytes::from(payload).slice(..came);
                    if !send(bytes) || !send(payload) || came < run.length as usize {
                        return Ok(());
                    }
                }
                Ok(Step::End) | Err(_) => {
                    send(bytes);
                    return Ok(());
                }
                Ok(_) if !send(bytes) => return Ok(()),
                Ok(_) => {}
            }
        }
    }

    /// The next bytes; fewer at the end.
    fn bytes(&mut self, length: usize) -> io::Result<Bytes> {
        // Grown as it comes: the length is the bundle's word.
        let mut bytes = Vec::with_capacity(length.min(1 << 20));
        (&self.input).take(length as u64).read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }
}

fn holds(held: &[ChunkSet], run: &Run) -> bool {
    held.get(run.manifest as usize).is_some_and(|held| run.chunks().all(|chunk| held.contains(chunk)))
}

fn fill(input: &mut impl Read, target: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < target.len() {
        match input.read(&mut target[done..]) {
            Ok(0) => break,
            Ok(more) => done += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
