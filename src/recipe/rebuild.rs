//! Putting a file together again.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};

use super::plan::{self, Part, Plan};
use super::{RecipeError, deflate, xz, zstd};

/// Copied at a time.
const BUFFER: u64 = 256 << 10;
/// Parts that stand beside each other are put together on so many cores at the most,
const CORES: usize = 4;
/// with so many bytes of contents in memory, and of one part.
const IN_MEMORY: u64 = 64 << 20;
const LARGEST: u64 = 40 << 20;

/// Writes the file that a plan describes, in order, as its contents come. What it holds in memory is
/// [`IN_MEMORY`] with what comes of it, or what an encoder of deflate chose for each level of nesting, or what
/// the encoder of xz takes.
///
/// # Errors
/// [`RecipeError`]: the contents end early, `out` takes no more, or the plan makes no sense.
pub fn rebuild(plan: &Plan, contents: &mut dyn Read, out: &mut dyn Write) -> Result<(), RecipeError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(CORES);
    if plan.parts.len() < 3 || cores < 2 {
        return follow(&plan.parts, contents, out);
    }
    let (jobs, waiting) = channel();
    let waiting = Mutex::new(waiting);
    std::thread::scope(|scope| {
        (0..cores).for_each(|_| drop(scope.spawn(|| work(&waiting))));
        // The workers end when nobody can send them any more.
        beside(&plan.parts, jobs, contents, out)
    })
}

/// A part as it is in the file, or why not.
type Made = Result<Vec<u8>, RecipeError>;

/// A part, its contents, and who waits for what comes of it.
struct Job<'a> {
    part: &'a Part,
    contents: Vec<u8>,
    made: SyncSender<Made>,
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
    while let Ok(Job { part, contents, made }) = next() {
        let mut file = Vec::new();
        let result = follow(std::slice::from_ref(part), &mut &contents[..], &mut file);
        // If nobody waits any more, it has failed elsewhere.
        made.send(result.map(|()| file)).ok();
    }
}

/// What is being put together, in the order of the file.
#[derive(Default)]
struct Pending {
    parts: VecDeque<(u64, Receiver<Made>)>,
    bytes: u64,
}

impl Pending {
    /// Writes the first ones, until no more than so many bytes of contents are left.
    fn write(&mut self, most: u64, out: &mut dyn Write) -> Result<(), RecipeError> {
        while self.bytes > most
            && let Some((length, made)) = self.parts.pop_front()
        {
            self.bytes -= length;
            let died = |_| RecipeError::Codec("a compressor died".to_owned());
            out.write_all(&made.recv().map_err(died)??)?;
        }
        Ok(())
    }

    /// Writes those that are ready.
    fn write_ready(&mut self, out: &mut dyn Write) -> Result<(), RecipeError> {
        while let Some((length, made)) = self.parts.front()
            && let Ok(made) = made.try_recv()
        {
            self.bytes -= length;
            self.parts.pop_front();
            out.write_all(&made?)?;
        }
        Ok(())
    }
}

/// Whether an encoder takes much memory, so that there is one at a time.
fn is_heavy(part: &Part) -> bool {
    match part {
        Part::Raw(_) => false,
        Part::Xz(..) | Part::Zstd(..) => true,
        Part::Deflate(_, inside) => inside.iter().any(is_heavy),
    }
}

/// Puts parts together beside each other, and writes them in order.
fn beside<'a>(
    parts: &'a [Part],
    jobs: Sender<Job<'a>>,
    contents: &mut dyn Read,
    out: &mut dyn Write,
) -> Result<(), RecipeError> {
    let mut pending = Pending::default();
    for part in parts {
        let length = plan::contents(std::slice::from_ref(part));
        if length > LARGEST || is_heavy(part) {
            pending.write(0, out)?;
            follow(std::slice::from_ref(part), contents, out)?;
            continue;
        }
        pending.write(IN_MEMORY - length, out)?;
        let mut content = Vec::with_capacity(length as usize);
        if contents.take(length).read_to_end(&mut content)? as u64 != length {
            return Err(RecipeError::Malformed("the contents end early"));
        }
        let (made, waiting) = sync_channel(1);
        // A part of nothing counts, too, so that it is waited for.
        pending.bytes += length.max(1);
        pending.parts.push_back((length.max(1), waiting));
        jobs.send(Job { part, contents: content, made })
            .map_err(|_| RecipeError::Codec("no core is left".to_owned()))?;
        pending.write_ready(out)?;
    }
    pending.write(0, out)
}

fn follow(parts: &[Part], contents: &mut dyn Read, out: &mut dyn Write) -> Result<(), RecipeError> {
    for part in parts {
        match part {
            Part::Raw(length) => copy(*length, contents, out)?,
            Part::Deflate(length, inside) => {
                let mut choices = Vec::new();
                contents.take(*length).read_to_end(&mut choices)?;
                let mut again = deflate::Again::new(&choices[..], out);
                follow(inside, contents, &mut again)?;
                again.finish()?;
            }
            Part::Xz(xz, inside) => {
                let mut again = xz::Again::new(xz, out)?;
                follow(inside, contents, &mut again)?;
                again.finish()?;
            }
            Part::Zstd(zstd, inside) => {
                let mut again = zstd::Again::new(zstd, out)?;
                follow(inside, contents, &mut again)?;
                again.finish()?;
            }
        }
    }
    Ok(())
}

fn copy(mut length: u64, contents: &mut dyn Read, out: &mut dyn Write) -> Result<(), RecipeError> {
    let mut buffer = vec![0; length.min(BUFFER) as usize];
    while length > 0 {
        let piece = &mut buffer[..length.min(BUFFER) as usize];
        contents.read_exact(piece)?;
        out.write_all(piece)?;
        length -= piece.len() as u64;
    }
    Ok(())
}
