//! What was weighed of late, and how it went: for people.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::core::id::BlobId;
use crate::core::recipe::Weighed;

/// So many are remembered.
const MOST: usize = 100;

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is pulled as shipped.
    AsShipped,
    /// The recipe is on its way.
    UnderWay,
    /// It was rebuilt.
    Rebuilt,
    /// Nobody wanted it here any more, or another machine leads now.
    Left,
    /// The recipe failed, and what was missing was pulled as shipped.
    Failed(String),
}

/// What a lead weighed before it pulled a blob.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Weighing {
    /// The blob.
    pub blob: BlobId,
    /// `NAME@VERSION`.
    pub package: String,
    /// When.
    pub at: Timestamp,
    /// What the WAN was taken to give, in bytes per second; none if nothing was known.
    pub wan_rate: Option<u64>,
    /// What matters more: `bytes` or `time`.
    pub prefer: String,
    /// The ways, the one as shipped first.
    pub ways: Vec<WayWeighed>,
    /// Which of them was chosen.
    pub chosen: usize,
    /// How it went.
    pub outcome: Outcome,
}

/// One way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WayWeighed {
    /// The version that it takes for granted, as `NAME@VERSION` where that is known.
    pub against: Option<String>,
    /// What it costs.
    #[serde(flatten)]
    pub weighed: Weighed,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    entries: Mutex<VecDeque<Weighing>>,
    failed: AtomicU64,
}

impl Log {
    fn entries(&self) -> MutexGuard<'_, VecDeque<Weighing>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, weighing: Weighing) {
        let mut entries = self.entries();
        entries.truncate(MOST - 1);
        entries.push_front(weighing);
    }

    /// The recipe that was chosen last for a blob has done its part.
    pub(super) fn ended(&self, blob: &BlobId, result: Result<(), String>) {
        if result.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.set(blob, result.map_or_else(Outcome::Failed, |()| Outcome::Rebuilt));
    }

    /// The flight has ended, or another node leads it now.
    pub(super) fn left(&self, blob: &BlobId, whole: bool) {
        self.set(blob, if whole { Outcome::Rebuilt } else { Outcome::Left });
    }

    fn set(&self, blob: &BlobId, outcome: Outcome) {
        if let Some(entry) = self.entries().iter_mut().find(|entry| entry.blob == *blob) {
            entry.outcome = outcome;
        }
    }

    /// The last first.
    pub(super) fn all(&self) -> Vec<Weighing> {
        self.entries().iter().cloned().collect()
    }

    /// Recipes that failed since the start.
    pub(super) fn failures(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}
