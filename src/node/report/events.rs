//! `GET /api/v1/events`: what changes, as it changes. One task looks for all who watch, and only while
//! somebody does.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::super::Node;
use super::{CatalogStatus, Flight, StoreStatus, UploadStatus};

/// How often flights are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// The rest is looked at once in so many times.
const SELDOM: u32 = 4;
/// The most who may watch at a time.
pub const MOST_WATCHERS: usize = 64;

/// What of the status changes by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Glance {
    /// It has had time to find its site.
    pub ready: bool,
    /// Connected members.
    pub members: usize,
    /// What the others are told of its weight in the ranking of leads.
    pub effective_weight: u32,
    /// What lowers it, in words.
    pub weight_reasons: Vec<String>,
    /// The catalog, without its age.
    pub catalog: CatalogStatus,
    /// The store.
    pub store: StoreStatus,
    /// What members get from this node.
    pub uploads: UploadStatus,
    /// What the site may take from the WAN, in words.
    pub wan: String,
}

/// What is told: JSON, made once for all.
#[derive(Debug, Clone, Default)]
struct Told {
    status: Arc<str>,
    flights: Arc<str>,
}

/// Tells all who watch.
#[derive(Debug)]
pub(in crate::node) struct Feed {
    places: Arc<Semaphore>,
    told: watch::Sender<Told>,
    /// Whether a task looks. Held while it ends, and while another watcher comes.
    looked_after: Mutex<bool>,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(MOST_WATCHERS)),
            told: watch::Sender::new(Told::default()),
            looked_after: Mutex::default(),
        }
    }
}

/// Somebody who watches.
#[derive(Debug)]
pub struct Watcher {
    told: watch::Receiver<Told>,
    seen: Told,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    /// The next that has changed, as an event's name and its JSON; `None` when the agent has ended.
    /// The first two calls tell how things stand.
    pub async fn next(&mut self) -> Option<(&'static str, Arc<str>)> {
        loop {
            let told = self.told.borrow_and_update().clone();
            if told.status != self.seen.status {
                self.seen.status = told.status.clone();
                return Some(("status", told.status));
            }
            if told.flights != self.seen.flights {
                self.seen.flights = told.flights.clone();
                return Some(("flights", told.flights));
            }
            self.told.changed().await.ok()?;
        }
    }
}

impl Node {
    /// Watches what changes; `None` if too many do already.
    pub fn watch(&self) -> Option<Watcher> {
        let feed = &self.inner.feed;
        let place = feed.places.clone().try_acquire_owned().ok()?;
        let mut looked_after = feed.looked_after.lock().unwrap_or_else(PoisonError::into_inner);
        if !*looked_after {
            *looked_after = true;
            self.look(true);
            tokio::spawn(look_after(self.clone()));
        }
        Some(Watcher { told: feed.told.subscribe(), seen: Told::default(), _place: place })
    }

    fn glance(&self) -> Glance {
        Glance {
            ready: self.is_ready(),
            members: self.inner.net.contacts().len(),
            effective_weight: self.inner.standing.effective_weight(),
            weight_reasons: self.inner.standing.reasons(),
            catalog: CatalogStatus { age_s: None, ..self.catalog_status() },
            store: self.store_status(),
            uploads: self.upload_status(),
            wan: self.wan().text,
        }
    }

    /// Looks, and tells what is new.
    fn look(&self, at_all: bool) {
        let flights: Vec<Flight> = self.flights();
        let flights = serde_json::to_string(&flights).unwrap_or_default();
        let status = at_all.then(|| serde_json::to_string(&self.glance()).unwrap_or_default());
        self.inner.feed.told.send_if_modified(|told| {
            let mut modified = false;
            for (old, new) in [(&mut told.flights, Some(flights)), (&mut told.status, status)] {
                if let Some(new) = new.filter(|new| **new != **old) {
                    *old = new.into();
                    modified = true;
                }
            }
            modified
        });
    }
}

/// Looks for as long as somebody watches.
async fn look_after(node: Node) {
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for turn in 0u32.. {
        tick.tick().await;
        let feed = &node.inner.feed;
        {
            let mut looked_after = feed.looked_after.lock().unwrap_or_else(PoisonError::into_inner);
            if feed.told.receiver_count() == 0 {
                *looked_after = false;
                return;
            }
        }
        node.look(turn.is_multiple_of(SELDOM));
    }
}
