//! Reading blobs back, one after another, on a thread that stands behind everything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::core::bitrate::Rate;
use crate::core::id::BlobId;
use crate::store::{Store, StoreError};

/// Bytes between two looks at the clock. While they are read the blob is not evicted.
const PIECE: u64 = 4 << 20;
/// As far behind other programs as the system lets one be; it hands its disk out likewise.
const NICEST: i32 = 19;

/// What one blob's reading has found.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    /// Bytes that were read.
    pub(super) bytes: u64,
    pub(super) damaged: Vec<u32>,
    /// It was evicted meanwhile, or the agent stops.
    pub(super) cut_off: bool,
}

/// Reads all that is held of a blob, no faster than a rate; calls back with bytes as they are read.
pub(super) async fn blob(
    store: Arc<dyn Store>,
    blob: BlobId,
    rate: Option<Rate>,
    stop: Arc<AtomicBool>,
    read: impl Fn(u64) + Send + 'static,
) -> Result<Found, StoreError> {
    let (tell, told) = oneshot::channel();
    // A thread of its own: how nice it is could not be taken back.
    let work = move || {
        stand_back();
        tell.send(on_thread(&*store, &blob, rate, &stop, read)).ok();
    };
    let started = std::thread::Builder::new().name("verify".into()).spawn(work);
    started.map_err(|source| StoreError::Io { doing: "start a thread", source })?;
    let cut_off = Found { cut_off: true, ..Found::default() };
    told.await.unwrap_or(Ok(cut_off))
}

fn stand_back() {
    let me = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(me), NICEST) {
        tracing::debug!(%error, "the thread that verifies is as important as others");
    }
}

fn on_thread(
    store: &dyn Store,
    blob: &BlobId,
    rate: Option<Rate>,
    stop: &AtomicBool,
    read: impl Fn(u64),
) -> Result<Found, StoreError> {
    let (begun, mut found, mut first) = (Instant::now(), Found::default(), 0);
    loop {
        let open = store.get(blob).filter(|_| !stop.load(Ordering::Relaxed));
        let Some(open) = open else { return Ok(Found { cut_off: true, ..found }) };
        let checked = open.recheck(first, PIECE)?;
        drop(open);
        found.bytes += checked.bytes;
        found.damaged.extend(checked.damaged);
        read(checked.bytes);
        match checked.next {
            Some(next) => first = next,
            None => return Ok(found),
        }
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64(found.bytes as f64 / rate.0.max(1) as f64);
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
    }
}
