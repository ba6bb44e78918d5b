//! A recipe's object, wherever it comes from, on its way to the thread that rebuilds from it.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::rebuild::{self, Busy, Came, Target, Took};
use crate::core::recipe::{BEGINNING, Head};
use crate::node::blocking;
use crate::recipe::Span;

/// Blocks that wait to be applied.
const WAITING: usize = 3;
/// A rebuild that gives nothing for so long, and does not wait for anything, is given up.
const STUCK: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_secs(1);

/// A recipe's object, read from its beginning to its end.
pub(in crate::node) trait Source: Send {
    /// The next so many bytes.
    ///
    /// # Errors
    /// In words.
    fn take(&mut self, length: usize) -> impl Future<Output = Result<Bytes, String>> + Send;

    /// Waits for something else than the object.
    fn meanwhile<T: Send>(&mut self, work: impl Future<Output = T> + Send) -> impl Future<Output = T> + Send;
}

/// What the object begins with.
///
/// # Errors
/// In words.
pub(in crate::node) async fn head(source: &mut impl Source) -> Result<Head, String> {
    let beginning = source.take(BEGINNING).await?;
    let beginning = beginning[..].try_into().map_err(|_| "it is cut off")?;
    let (stored, length) = Head::lengths(beginning).map_err(|error| error.to_string())?;
    let packed = source.take(stored as usize).await?;
    let unpacked = blocking(move || zstd::bulk::decompress(&packed, length as usize));
    let encoded = unpacked.await.ok_or("the agent is stopping")?.map_err(|error| error.to_string())?;
    Head::decode(encoded.into()).map_err(|error| error.to_string())
}

/// Hands the blocks to a thread that rebuilds what the recipe is for; `taking` takes from the target what
/// the thread gives.
///
/// # Errors
/// In words.
pub(in crate::node) async fn rebuild(
    source: &mut impl Source,
    head: Head,
    old: Option<Span>,
    target: impl Target + Send + 'static,
    busy: Busy,
    taking: impl Future<Output = ()>,
) -> Result<Took, String> {
    let (blocks, coming) = mpsc::channel::<Came>(WAITING);
    let (plan, working) = (head.clone(), busy.clone());
    let work = tokio::task::spawn_blocking(move || rebuild::run(&plan, old, coming, target, &working));
    let feed = async {
        for block in head.blocks {
            let bytes = source.take(block.stored as usize).await?;
            // If nobody takes it, the thread has failed, and says why.
            if source.meanwhile(blocks.send((block, bytes))).await.is_err() {
                break;
            }
        }
        drop(blocks);
        let done = source.meanwhile(work).await.map_err(|error| error.to_string())?;
        done.map_err(|error| error.to_string())
    };
    let stuck = async {
        while busy.time() < STUCK {
            tokio::time::sleep(LOOK).await;
        }
    };
    // A thread cannot be ended: it finds that nobody takes what it gives.
    tokio::select! {
        (done, ()) = async { tokio::join!(feed, taking) } => done,
        () = stuck => Err(format!("nothing was rebuilt for {} s", STUCK.as_secs())),
    }
}
