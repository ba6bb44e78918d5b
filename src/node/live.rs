//! Who waits for what: clients of this node, and the news that wake them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};

use crate::core::flight::{Failure, Input, Urgency};
use crate::core::id::{BlobId, ManifestId};

/// What a waiting client is told.
#[derive(Debug, Clone, Default)]
pub(super) struct News {
    /// Counts chunks that came.
    pub(super) chunks: u64,
    /// How the flight ended, if it did.
    pub(super) end: Option<Result<(), Failure>>,
}

#[derive(Debug)]
struct Waiting {
    clients: usize,
    /// Those that want it here, and read nothing.
    keepers: usize,
    news: watch::Sender<News>,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { clients: 0, keepers: 0, news: watch::Sender::new(News::default()) }
    }
}

/// The blobs that clients of this node wait for.
#[derive(Debug, Default)]
pub(super) struct Live {
    waiting: Mutex<HashMap<BlobId, Waiting>>,
}

impl Live {
    fn waiting(&self) -> MutexGuard<'_, HashMap<BlobId, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client begins to read a blob. `first` is called if no other client is reading it.
    pub(super) fn enter(
        self: &Arc<Self>,
        blob: BlobId,
        inputs: mpsc::Sender<Input>,
        first: impl FnOnce(),
        last: impl FnOnce() + Send + Sync + 'static,
    ) -> Ticket {
        let mut waiting = self.waiting();
        let entry = waiting.entry(blob).or_default();
        if entry.clients == 0 {
            first();
        }
        entry.clients += 1;
        let news = entry.news.subscribe();
        Ticket { live: self.clone(), blob, news, inputs, wanted: false, last: Some(Box::new(last)) }
    }

    /// Somebody wants a blob to be here, and reads nothing of it.
    pub(super) fn enter_to_keep(self: &Arc<Self>, blob: BlobId, inputs: mpsc::Sender<Input>) -> Ticket {
        let mut waiting = self.waiting();
        let entry = waiting.entry(blob).or_default();
        entry.keepers += 1;
        let news = entry.news.subscribe();
        Ticket { live: self.clone(), blob, news, inputs, wanted: false, last: None }
    }

    /// Chunks came.
    pub(super) fn came(&self, blob: &BlobId) {
        if let Some(entry) = self.waiting().get(blob) {
            entry.news.send_modify(|news| news.chunks += 1);
        }
    }

    /// The flight ended, well or not.
    pub(super) fn ended(&self, blob: &BlobId, result: Result<(), Failure>) {
        if let Some(entry) = self.waiting().get(blob) {
            entry.news.send_modify(|news| news.end = Some(result));
        }
    }
}

/// One client's interest in a blob. Dropping it takes this client out, and no other.
pub(super) struct Ticket {
    live: Arc<Live>,
    blob: BlobId,
    pub(super) news: watch::Receiver<News>,
    inputs: mpsc::Sender<Input>,
    wanted: bool,
    /// What to do when the last reader has left; nothing is read if there is none.
    last: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Ticket {
    /// Makes the node fetch what is missing.
    pub(super) async fn want(&mut self, manifest: ManifestId, urgency: Urgency) {
        // A flight that ended before is begun anew.
        if let Some(entry) = self.live.waiting().get(&self.blob) {
            entry.news.send_modify(|news| news.end = None);
        }
        self.news.mark_unchanged();
        self.wanted = true;
        self.inputs.send(Input::Want { blob: self.blob, manifest, urgency }).await.ok();
    }

    pub(super) fn wants(&self) -> bool {
        self.wanted
    }

    pub(super) async fn say(&self, input: Input) {
        self.inputs.send(input).await.ok();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut waiting = self.live.waiting();
        let Some(entry) = waiting.get_mut(&self.blob) else { return };
        let reads = self.last.is_some();
        let count = if reads { &mut entry.clients } else { &mut entry.keepers };
        *count -= 1;
        let (last_reader, nobody) = (reads && entry.clients == 0, entry.clients + entry.keepers == 0);
        if nobody {
            waiting.remove(&self.blob);
        }
        drop(waiting);
        if last_reader && let Some(last) = self.last.take() {
            last();
        }
        if !nobody {
            return;
        }
        let (inputs, blob) = (self.inputs.clone(), self.blob);
        if inputs.try_send(Input::Unwant { blob }).is_err()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { inputs.send(Input::Unwant { blob }).await });
        }
    }
}
