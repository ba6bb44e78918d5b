//! A bundle written into a file: how long each part is, is known before, so that several threads read,
//! check and write, each at the part's own place.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::num::NonZero;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::fs::{OFlags, fcntl_getfl};

use crate::core::bundle::{HEAD, Layout, Run};
use crate::core::manifest::Manifest;

/// Threads, at most: more than a disk has use for are in others' way.
const THREADS: usize = 4;

/// Why a bundle was not written.
#[derive(Debug, thiserror::Error)]
pub enum IntoFile<E> {
    /// The file does not take it.
    #[error("cannot write the file: {0}")]
    File(#[from] io::Error),
    /// Its content cannot be had.
    #[error("{0}")]
    Content(E),
}

/// A run, and where it belongs.
struct Part {
    run: Run,
    manifest: Arc<Manifest>,
    head: [u8; HEAD],
    at: u64,
}

/// Writes a bundle from where a file stands, which then stands behind it; blocks. `read` puts a run's payload
/// into a buffer of its length, checked.
///
/// # Errors
/// [`IntoFile`]; a part of the bundle may have been written.
pub fn write_into<E: Send>(
    layout: Layout,
    mut file: File,
    read: impl Fn(&Run, &Manifest, &mut [u8]) -> Result<(), E> + Sync,
) -> Result<(), IntoFile<E>> {
    if fcntl_getfl(&file).map_err(io::Error::from)?.contains(OFlags::APPEND) {
        // Such a file takes everything at its end, whatever place one names.
        let why = "it is open for appending, and a bundle is not written in order";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why).into());
    }
    let mut at = file.stream_position()?;
    let Layout { beginning, runs, mut writer, manifests, .. } = layout;
    file.write_all_at(&beginning, at)?;
    at += beginning.len() as u64;
    let mut parts = Vec::with_capacity(runs.len());
    for run in runs {
        let manifest =
            manifests.get(run.manifest as usize).ok_or(io::Error::from(io::ErrorKind::InvalidInput))?;
        parts.push(Part { run, manifest: manifest.clone(), head: writer.run(&run), at });
        at += (HEAD + run.length as usize) as u64;
    }
    write_parts(&parts, &file, read)?;
    let end = writer.end();
    file.write_all_at(&end, at)?;
    file.seek(SeekFrom::Start(at + end.len() as u64))?;
    Ok(())
}

fn write_parts<E: Send>(
    parts: &[Part],
    file: &File,
    read: impl Fn(&Run, &Manifest, &mut [u8]) -> Result<(), E> + Sync,
) -> Result<(), IntoFile<E>> {
    let longest = parts.iter().map(|part| part.run.length as usize).max().unwrap_or(0);
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let work = || {
        // One for all of a thread's runs: memory that is asked for anew each time is cleared each time.
        let mut buffer = vec![0; HEAD + longest];
        while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
            let buffer = &mut buffer[..HEAD + part.run.length as usize];
            buffer[..HEAD].copy_from_slice(&part.head);
            let read = read(&part.run, &part.manifest, &mut buffer[HEAD..]).map_err(IntoFile::Content);
            if let Err(error) = read.and_then(|()| Ok(file.write_all_at(buffer, part.at)?)) {
                next.store(parts.len(), Ordering::Relaxed);
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}
