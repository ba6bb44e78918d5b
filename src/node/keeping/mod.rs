//! Having what was ordered: pins, the copies that the site is to keep, and packages to follow.
//!
//! Nobody places copies. Every node looks now and then at the orders, at the catalog and at what the
//! others hold, finds out what it is to have ([`wants`]), fetches what is missing in the background,
//! and pins what is there. Whatever was interrupted is found out again by the next look.

mod fetch;
mod give;
mod site;
mod wants;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::hook::Arrival;
use super::report::Kept;
use super::{Node, blocking};
use crate::core::id::{BlobId, NodeId};
use crate::store::Held;
use fetch::Fetches;
pub(super) use site::Keeping;
use site::Mates;
use wants::{Want, Wants};

/// Looks are this far apart, if nothing happens.
const LOOK: Duration = Duration::from_secs(2);
/// The others are asked what they hold this often while copies are to be kept.
const ASK: Duration = Duration::from_secs(10);
/// And so soon after something has happened.
const ASK_SOON: Duration = Duration::from_secs(1);

/// What the last look has found.
#[derive(Debug, Default)]
pub(super) struct View {
    found: Mutex<Found>,
}

#[derive(Debug, Default, Clone)]
struct Found {
    kept: Vec<Kept>,
    troubles: Vec<String>,
    mine: Vec<Keeping>,
}

impl View {
    fn now(&self) -> Found {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, found: Found) {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }
}

impl Node {
    /// What is to be kept, here and on the site.
    pub fn kept(&self) -> Vec<Kept> {
        self.inner.keeping.now().kept
    }

    /// Orders that cannot be followed, in words.
    pub fn order_troubles(&self) -> Vec<String> {
        self.inner.keeping.now().troubles
    }

    /// What this node has of what is to be kept, for the others.
    pub(super) fn own_keeping(&self) -> Vec<Keeping> {
        self.inner.keeping.now().mine
    }
}

/// Keeps what is to be kept, as long as the agent runs.
pub(super) async fn keep(node: Node) {
    let mut changes = (node.orders().changes(), node.own_orders().changes());
    let mut keeper = Keeper {
        fetches: Fetches::new(node.clone()),
        node,
        mates: Mates::default(),
        members: Vec::new(),
        asked: None,
        catalog: None,
    };
    loop {
        keeper.look().await;
        let news = tokio::select! {
            _ = changes.0.changed() => true,
            _ = changes.1.changed() => true,
            () = keeper.fetches.ended() => true,
            () = tokio::time::sleep(LOOK) => false,
        };
        if news {
            keeper.asked = None;
        }
    }
}

struct Keeper {
    node: Node,
    fetches: Fetches,
    mates: Mates,
    members: Vec<NodeId>,
    asked: Option<Instant>,
    catalog: Option<tokio::task::JoinHandle<()>>,
}

impl Keeper {
    async fn look(&mut self) {
        let orders = wants::ordered(&self.node);
        if orders.is_empty() && self.fetches.is_idle() && self.node.kept().is_empty() {
            return self.unpin_all().await;
        }
        self.keep_catalog();
        self.ask_others(orders.any_seeds()).await;
        let store = self.node.inner.store.clone();
        let Some(held) = blocking(move || store.list()).await else { return };
        let held: HashMap<BlobId, Held> = held.into_iter().map(|held| (held.blob, held)).collect();
        let parts = self.parts(&held).await;
        let wants = orders.resolve(&self.node, &self.mates, &parts, self.fetches.failures());
        self.fetches.keep_to(&wants, &parts);
        self.pin(&wants, &held).await;
        self.tell(&wants, &parts);
        self.run_hooks(&wants, &parts).await;
    }

    /// What is followed and has arrived is told to the hook; of news, it finds out itself.
    async fn run_hooks(&self, wants: &Wants, parts: &HashMap<BlobId, Part>) {
        let complete = |blob: &BlobId| parts.get(blob).is_some_and(|part| part.complete);
        for want in wants.by_blob.iter().filter(|(blob, _)| complete(blob)).map(|(_, want)| want) {
            for follow in &want.follows {
                self.node.hooks().arrived(follow, Arrival::of(follow, &want.resolved)).await;
            }
        }
    }

    /// What follows a channel has to see it move, whether clients ask for anything or not.
    fn keep_catalog(&mut self) {
        if self.catalog.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let node = self.node.clone();
        self.catalog = Some(tokio::spawn(async move { node.catalog().look().await }));
    }

    async fn ask_others(&mut self, seeds: bool) {
        let contacts = self.node.inner.net.contacts();
        let members: Vec<NodeId> = contacts.iter().map(|contact| contact.node).collect();
        if members != self.members {
            self.members = members;
            self.asked = None;
        }
        let due = self.asked.is_none_or(|at| at.elapsed() >= ASK);
        if seeds && due {
            let age = if self.asked.is_none() { Duration::ZERO } else { ASK_SOON };
            let inventories = self.node.inventories(age).await;
            self.asked = Some(Instant::now());
            self.mates.heard(Instant::now(), &inventories.nodes);
        }
        self.mates.are(&contacts);
    }

    /// Bytes that are here, of what is held at all.
    async fn parts(&self, held: &HashMap<BlobId, Held>) -> HashMap<BlobId, Part> {
        let partial: Vec<BlobId> =
            held.values().filter(|held| !held.complete).map(|held| held.blob).collect();
        let store = self.node.inner.store.clone();
        let measure = move || {
            let bytes = |blob: BlobId| {
                let open = store.at_hand(&blob)?;
                Some((blob, open.manifest().bytes_of(open.held().iter())))
            };
            partial.into_iter().filter_map(bytes).collect::<HashMap<_, _>>()
        };
        let partial = blocking(measure).await.unwrap_or_default();
        let part = |held: &Held| {
            let bytes = if held.complete { held.size } else { partial.get(&held.blob).copied().unwrap_or(0) };
            Part { bytes, complete: held.complete }
        };
        held.values().map(|held| (held.blob, part(held))).collect()
    }

    async fn pin(&self, wants: &Wants, held: &HashMap<BlobId, Held>) {
        let wanted = |held: &Held| wants.by_blob.get(&held.blob).is_some_and(|want| want.pin);
        let wrong: Vec<(BlobId, bool)> = held
            .values()
            .map(|held| (held.blob, held.pinned, wanted(held)))
            .filter(|(_, pinned, wanted)| pinned != wanted)
            .map(|(blob, _, wanted)| (blob, wanted))
            .collect();
        self.set_pins(wrong).await;
    }

    async fn unpin_all(&self) {
        let pinned = self.node.inner.store.list().into_iter().filter(|held| held.pinned);
        self.set_pins(pinned.map(|held| (held.blob, false)).collect()).await;
    }

    async fn set_pins(&self, pins: Vec<(BlobId, bool)>) {
        if pins.is_empty() {
            return;
        }
        let store = self.node.inner.store.clone();
        blocking(move || {
            for (blob, pinned) in pins {
                store.set_pinned(&blob, pinned);
            }
        })
        .await;
    }

    /// For `status`, and for the others.
    fn tell(&self, wants: &Wants, parts: &HashMap<BlobId, Part>) {
        let kept = wants.by_blob.iter().map(|(blob, want)| self.kept(blob, want, parts.get(blob)));
        let mine = wants.by_blob.iter().map(|(blob, want)| {
            let part = parts.get(blob).copied().unwrap_or_default();
            let refuses = self.fetches.failures().get(blob).filter(|_| want.fetch && !part.complete);
            let (bytes, complete, tries) = (part.bytes, part.complete, want.fetch);
            Keeping { blob: *blob, bytes, complete, tries, refuses: refuses.cloned() }
        });
        let found = Found { kept: kept.collect(), troubles: wants.troubles.clone(), mine: mine.collect() };
        self.node.inner.keeping.set(found);
    }

    fn kept(&self, blob: &BlobId, want: &Want, part: Option<&Part>) -> Kept {
        let part = part.copied().unwrap_or_default();
        let serves = self.node.inner.standing.role().shares();
        let copies = self.mates.complete(blob) + usize::from(part.complete && serves);
        Kept {
            package: want.resolved.label(),
            orders: want.why.clone(),
            size: want.resolved.published.size,
            bytes: part.bytes,
            complete: part.complete,
            here: want.fetch,
            pinned: want.pin,
            coming: self.fetches.is_under_way(blob),
            refused: self.fetches.failures().get(blob).filter(|_| !part.complete).cloned(),
            copies_wanted: want.copies.map(|copies| copies.to_string()),
            copies,
            survives: copies.checked_sub(1),
            by: want.by.map(|by| by.to_string()),
        }
    }
}

/// What is here of a blob.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    bytes: u64,
    complete: bool,
}

/// What could not be fetched, and why.
type Failures = BTreeMap<BlobId, String>;
