//! Objects of foreign repositories: each crosses the WAN once for the site, and is passed on as it
//! comes.
//!
//! As with packages, nodes agree without a vote on who brings an object ([`bring`]): all rank the live
//! nodes for it and ask the first, its *home*. The home looks what the site holds already, asks the
//! upstream ([`pull`]), cuts what comes into segments and tells who follows of each as soon as it is
//! stored. A segment is a blob like any other: members fetch it in a flight, from whoever holds it.
//! Clients read through an [`Object`], whoever brings it.

mod bring;
mod by_recipe;
mod login;
mod object;
mod outage;
mod pull;
mod segments;
mod serve;
mod shelf;
mod versions;
mod wanted;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Node;
use super::books::Books;
use super::live::Ticket;
use super::passage::{Gate, Passage};
use super::toll::Toll;
use super::windows::Closed;
use crate::core::flight::Urgency;
use crate::core::id::{BlobId, NodeId};
use crate::core::ledger::{Front, WanReason};
use crate::core::upstream::record::Record;
use crate::core::upstream::{Digest, ObjectKey};
use crate::origin::Carried;
use crate::origin::upstream::{Client, Credentials, Fetch, Upstream, UpstreamError};
pub use object::Object;
use outage::Outages;
use shelf::Shelf;
pub(super) use versions::SHORTEST;
pub use wanted::Wanted;

/// What an upstream does not have is not asked for again for so long.
const NEGATIVE: Duration = Duration::from_secs(10);
/// Nobody has asked for news of it for so long: what is left is not pulled.
const LINGER: Duration = Duration::from_secs(12);

/// Why an object cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ObjectError {
    /// Its upstream says so, or cannot be reached.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// It was replaced by another one while a client was reading it.
    #[error("{0} was replaced at its upstream while it was read; ask again")]
    Changed(String),
    /// The site's WAN is closed at this hour.
    #[error("{}", .0.text)]
    Closed(Closed),
    /// This node or its site cannot bring it.
    #[error("{0}")]
    Failed(String),
}

/// From where an object came, for `Cache-Status`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Came {
    /// It was on the site, and fresh.
    #[default]
    Held,
    /// Its upstream says that it has not changed.
    Checked,
    /// From its upstream.
    Pulled,
    /// It was on the site and is past its time, and the upstream is out of reach.
    Stale,
}

/// An object on its way, as those who wait for it see it.
#[derive(Debug, Clone, Default)]
struct Progress {
    /// Counts up when it begins anew, as another object.
    generation: u64,
    /// What has come; none before anything is known.
    record: Option<Arc<Record>>,
    came: Came,
    /// How it ended, if it did.
    end: Option<Result<(), ObjectError>>,
}

/// An object that somebody waits for.
struct Live {
    progress: watch::Sender<Progress>,
    readers: AtomicUsize,
    /// Who read it first here, for the ledger.
    front: Mutex<Option<Front>>,
    /// When a member last asked for news.
    asked: Mutex<Option<Instant>>,
    /// This node pulls it, or tries to.
    home: std::sync::atomic::AtomicBool,
    began: Instant,
    /// Keep the ledger's account of what came for this node's clients, until they have read it.
    tickets: Mutex<Vec<Ticket>>,
}

impl Live {
    fn new() -> Self {
        Self {
            progress: watch::Sender::new(Progress::default()),
            readers: AtomicUsize::new(0),
            front: Mutex::default(),
            asked: Mutex::default(),
            home: false.into(),
            began: Instant::now(),
            tickets: Mutex::default(),
        }
    }

    /// Somebody waits for it, here or at another node.
    fn is_wanted(&self) -> bool {
        let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        self.readers.load(Ordering::Relaxed) > 0
            || asked.is_some_and(|at| at.elapsed() < LINGER)
            || self.began.elapsed() < Duration::from_secs(2)
    }

    fn keep(&self, ticket: Option<Ticket>) {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner).extend(ticket);
    }

    /// It has ended, and those who read it have had it.
    async fn settle(&self) {
        while self.is_wanted() {
            tokio::time::sleep(LINGER).await;
        }
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn note_asked(&self) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn end(&self) -> Option<Result<(), ObjectError>> {
        self.progress.borrow().end.clone()
    }
}

/// All upstreams of this node.
pub(super) struct Upstreams {
    ways: BTreeMap<String, Way>,
    shelf: Arc<Shelf>,
    outages: Outages<String>,
    logins: login::Logins,
    /// Members that said nothing of an upstream when they were asked as its homes.
    silent: Outages<(NodeId, String)>,
    live: Mutex<HashMap<ObjectKey, Arc<Live>>>,
}

/// The way to one upstream, and the account of what it carries.
#[derive(Clone)]
struct Way {
    client: Client,
    toll: Arc<Toll>,
}

impl Way {
    fn new(upstream: &Upstream, books: &Arc<Books>) -> Self {
        let (books, label, toll) = (books.clone(), label(&upstream.name), Arc::new(Toll::default()));
        let counted = toll.clone();
        let sink = move |carried: Carried| {
            counted.carried(&carried);
            books.carried(&label, WanReason::Cold, carried);
        };
        Self { client: Client::new(Arc::new(upstream.clone()), Arc::new(sink)), toll }
    }

    /// The way of what is about to be asked for.
    fn passage(&self, node: &Node) -> Passage {
        let gate = Gate { meter: self.client.meter().clone(), toll: self.toll.clone() };
        Passage::begin(node.inner.allowance.begin(Urgency::Foreground), gate)
    }
}

/// How the ledger calls an upstream.
fn label(upstream: &str) -> String {
    format!("{upstream}@upstream")
}

impl Upstreams {
    /// # Errors
    /// In words.
    pub(super) fn open(dir: &Path, upstreams: &[Upstream], books: &Arc<Books>) -> Result<Self, String> {
        let way = |upstream: &Upstream| (upstream.name.clone(), Way::new(upstream, books));
        let shelf = Arc::new(Shelf::open(dir)?);
        let ways = upstreams.iter().map(way).collect();
        Ok(Self {
            ways,
            shelf,
            outages: Outages::default(),
            logins: login::Logins::default(),
            silent: Outages::default(),
            live: Mutex::default(),
        })
    }

    /// The ways to them, by name.
    pub(super) fn clients(&self) -> impl Iterator<Item = (&String, &Client)> {
        self.ways.iter().map(|(name, way)| (name, &way.client))
    }

    fn client(&self, name: &str) -> Option<&Client> {
        self.ways.get(name).map(|way| &way.client)
    }

    fn live(&self) -> MutexGuard<'_, HashMap<ObjectKey, Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is held, or on its way.
    fn knows(&self, wanted: &Wanted) -> bool {
        let key = wanted.key();
        self.live().contains_key(&key) || self.shelf.get(&key).is_some()
    }

    /// Objects have come of late that a kill would make unknown.
    pub(super) fn is_unsaved(&self) -> bool {
        self.shelf.is_unsaved()
    }

    /// Blocks.
    pub(super) fn save(&self) {
        self.shelf.save();
    }

    /// How the ledger calls a blob, if it is a piece of an object.
    pub(super) fn label_of(&self, blob: &BlobId) -> Option<String> {
        self.shelf.label_of(blob).map(|label| label.to_string())
    }
}

impl Node {
    /// An upstream by its name.
    pub fn upstream(&self, name: &str) -> Option<Arc<Upstream>> {
        self.inner.upstreams.client(name).map(|client| client.upstream().clone())
    }

    /// All upstreams.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.inner.upstreams.clients().map(|(_, client)| client.upstream())
    }

    /// What is said of an object that never changes, without bringing it: by what this node holds, else by
    /// its upstream, else by the site. As [`Node::object_for`] a client with a login.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn about_object(
        &self,
        wanted: Wanted,
        front: Front,
        login: Option<Credentials>,
    ) -> Result<Record, ObjectError> {
        let own = login.and_then(|login| self.with_login(&wanted, login));
        match (self.said_of(wanted, front).await, own) {
            (Err(error), Some(own)) if login::is_for_some(&error) => self.said_of(own, front).await,
            (said, _) => said,
        }
    }

    async fn said_of(&self, wanted: Wanted, front: Front) -> Result<Record, ObjectError> {
        let wanted = self.within_realm(wanted);
        let held = self.inner.upstreams.shelf.get(&wanted.key());
        if let Some(record) = held.filter(|record| record.complete && wanted.digest.is_some()) {
            return Ok(record);
        }
        let Some(client) = self.inner.upstreams.client(&wanted.upstream) else {
            return Err(ObjectError::Failed(format!("there is no upstream {:?}", wanted.upstream)));
        };
        let (path, accept, login) = (wanted.path.clone(), wanted.accept.clone(), wanted.login.clone());
        match client.get(&Fetch { path, accept, login, head: true, ..Fetch::default() }).await {
            Ok(said) => Ok(Record { headers: said.headers, size: said.size, ..Record::default() }),
            Err(error @ UpstreamError::Status { status: 401 | 404, .. }) => Err(error.into()),
            // The site may hold it; and some stores answer no such question.
            Err(_) => {
                let (record, _) = self.object(wanted, front).about().await?;
                Ok(Record::clone(&record))
            }
        }
    }

    /// Notes that what was brought as one thing has this digest, which the caller has computed: it is found
    /// by that too.
    pub async fn note_digest(&self, wanted: Wanted, digest: Digest, record: &Record) {
        let wanted = self.within_realm(Wanted { digest: Some(digest), ..wanted });
        let shelf = self.inner.upstreams.shelf.clone();
        let record = Record { digest: Some(digest), ..record.clone() };
        if record.complete {
            let unknown = move || shelf.get(&wanted.key()).is_none().then(|| shelf.put(&wanted, &record));
            super::blocking(unknown).await;
        }
    }

    /// A complete object, by its [content](Record::content).
    pub(super) fn object_of_content(&self, content: &BlobId) -> Option<Record> {
        self.inner.upstreams.shelf.of_content(content)
    }

    /// Whether a blob is a piece of an upstream's object: no origin has it.
    pub(super) fn is_of_upstream(&self, blob: &BlobId) -> bool {
        self.inner.upstreams.shelf.label_of(blob).is_some()
    }

    /// Begins to read an object.
    pub fn object(&self, wanted: Wanted, front: Front) -> Object {
        let wanted = self.within_realm(wanted);
        let live = self.bring(&wanted, false);
        live.readers.fetch_add(1, Ordering::Relaxed);
        live.front.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(front);
        Object::new(self.clone(), wanted, front, live)
    }

    /// As this node may have it: with the credentials that are configured, or else a client's.
    fn within_realm(&self, wanted: Wanted) -> Wanted {
        let upstream = self.upstream(&wanted.upstream);
        let credentials = upstream.as_ref().and_then(|upstream| upstream.credentials.as_ref());
        match credentials {
            Some(credentials) => Wanted { realm: Some(credentials.realm()), login: None, ..wanted },
            None => wanted,
        }
    }

    /// The object on its way, which is set out for if it is not yet; `home`: a member takes this node for
    /// its home.
    fn bring(&self, wanted: &Wanted, home: bool) -> Arc<Live> {
        let key = wanted.key();
        let mut all = self.inner.upstreams.live();
        all.retain(|_, live| live.is_wanted() || live.end().is_none() || is_refusal(live));
        if let Some(live) = all.get(&key).filter(|live| is_current(live, wanted)) {
            return live.clone();
        }
        let live = Arc::new(Live::new());
        all.insert(key, live.clone());
        drop(all);
        let (node, wanted, bringing) = (self.clone(), wanted.clone(), live.clone());
        tokio::spawn(async move {
            bring::bring(node.clone(), wanted, bringing.clone(), home).await;
            bringing.settle().await;
            let mut all = node.inner.upstreams.live();
            all.retain(|_, live| !Arc::ptr_eq(live, &bringing) || is_refusal(live));
        });
        live
    }
}

/// Whether the upstream has said that there is no such thing, a moment ago.
fn is_refusal(live: &Live) -> bool {
    let refused = matches!(live.end(), Some(Err(ObjectError::Upstream(UpstreamError::Status { .. }))));
    refused && live.began.elapsed() < NEGATIVE
}

/// Whether an upstream has refused it that is asked for it now: what has a digest may be at others, too.
fn is_of(error: &ObjectError, wanted: &Wanted) -> bool {
    let at = (&wanted.upstream, &wanted.path);
    !matches!(error, ObjectError::Upstream(UpstreamError::Status { upstream, path, .. }) if (upstream, path) != at)
}

/// Whether what was brought, or is being brought, is what is wanted now.
fn is_current(live: &Live, wanted: &Wanted) -> bool {
    let progress = live.progress.borrow();
    match &progress.end {
        None => true,
        Some(Ok(())) => {
            let fresh = |record: &Arc<Record>| wanted.is_fresh(record);
            // Many who ask at the same moment are served by one question to the upstream, if it was asked.
            let asked = progress.came != Came::Held && live.began.elapsed() < wanted::AT_ONCE;
            asked || progress.record.as_ref().is_some_and(fresh)
        }
        Some(Err(error)) if is_refusal(live) => is_of(error, wanted),
        Some(Err(_)) => live.began.elapsed() < Duration::from_secs(1),
    }
}
