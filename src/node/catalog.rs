//! Keeping the catalog current: one node of the site asks the origin, the others ask it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prost::Message;

use super::books::Books;
use super::standing::Standing;
use super::{Config, settle};
use crate::core::id::{NodeId, PackageName, Version};
use crate::core::ledger::WanReason;
use crate::core::orders::Selector;
use crate::core::rank::rank;
use crate::core::wire::message::{CatalogBundle, CatalogFile, CatalogRequest, Request, request, response};
use crate::net::Net;
use crate::origin::catalog::{Published, Unresolved};
use crate::origin::{Catalog, Fetch, Keeper, Origin, OriginError};

/// The longest catalog that a member may send, in bytes.
const MAX_BUNDLE: u64 = 64 << 20;
/// A member has so long to answer: it may have to ask the origin itself.
const PATIENCE: Duration = Duration::from_secs(10);
/// When a package is asked for that is not in the catalog, it is asked for anew unless it is
/// younger than this.
const FRESH: Duration = Duration::from_millis(250);
/// How the ledger calls the catalog.
const LABEL: &str = "(catalog)";

/// Why a package cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The catalog has no such thing.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    /// There is no catalog to look into.
    #[error("there is no catalog yet: {0}")]
    NoCatalog(String),
    /// The catalog is past its time.
    #[error(
        "the catalog has expired on {0}; run 'branchline origin renew' where its keys are. Versions that this node holds can still be fetched by their number"
    )]
    Expired(jiff::Timestamp),
}

/// What was asked for, resolved.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The package.
    pub name: PackageName,
    /// Its version.
    pub version: Version,
    /// What the catalog says of it.
    pub published: Published,
}

impl Resolved {
    /// As `NAME@VERSION`.
    pub fn label(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

/// The catalog, and who keeps it current.
#[derive(Debug)]
pub struct CatalogService {
    keeper: Keeper,
    origin: Origin,
    net: Net,
    interval: Duration,
    standing: Arc<Standing>,
    key: [u8; 32],
    settled_at: Instant,
    checked: Mutex<Option<Instant>>,
    /// Since when checks have failed, and why the last one did.
    failing: Mutex<Option<(jiff::Timestamp, String)>>,
    refreshing: tokio::sync::Mutex<()>,
}

impl CatalogService {
    /// # Errors
    /// As [`Origin::open`].
    pub(super) fn new(
        keeper: Keeper,
        origin: &Origin,
        net: Net,
        books: Arc<Books>,
        config: &Config,
        standing: Arc<Standing>,
    ) -> Result<Self, OriginError> {
        let sink = move |carried| books.carried(LABEL, WanReason::Revalidate, carried);
        let origin = origin.metered(Arc::new(sink))?;
        Ok(Self {
            keeper,
            origin,
            net,
            interval: config.catalog_interval,
            standing,
            key: *blake3::hash(b"catalog").as_bytes(),
            settled_at: Instant::now() + settle(config),
            checked: Mutex::default(),
            failing: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
        })
    }

    /// The newest catalog that was verified.
    pub fn current(&self) -> Option<Arc<Catalog>> {
        self.keeper.current()
    }

    /// Since when it was last known to be the newest.
    pub fn age(&self) -> Option<Duration> {
        let checked = *self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        checked.map(|at| at.elapsed())
    }

    /// Why the last check failed, if it did.
    pub fn last_error(&self) -> Option<String> {
        self.failing().map(|(_, why)| why)
    }

    /// Since when checks have failed, and why the last one did.
    pub fn failing(&self) -> Option<(jiff::Timestamp, String)> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Finds a package, looking for a newer catalog when that may help.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub async fn resolve(&self, name: &str, wanted: Option<&str>) -> Result<Resolved, ResolveError> {
        let first = self.up_to_date(self.interval).await;
        let found = self.look_up(name, wanted);
        let catalog_fine = self.current().is_some_and(|catalog| !catalog.is_expired());
        if found.is_ok() && catalog_fine {
            return found;
        }
        if first.is_ok() || self.current().is_none() {
            self.up_to_date(FRESH).await.ok();
        }
        if self.current().is_none() {
            let why = self.last_error().unwrap_or_else(|| "the origin was not reached yet".into());
            return Err(ResolveError::NoCatalog(why));
        }
        self.look_up(name, wanted)
    }

    /// What a name means by the catalog that is here, however old that is: for orders, which are
    /// looked at again and again.
    pub(super) fn means(&self, selector: &Selector) -> Result<Resolved, ResolveError> {
        let catalog = self.current().ok_or_else(|| ResolveError::NoCatalog("none was fetched yet".into()))?;
        let wanted = selector.wanted.as_ref().map(Version::as_str);
        let (name, version, published) = catalog.resolve(selector.name.as_str(), wanted)?;
        Ok(Resolved { name, version, published })
    }

    /// Brings the catalog up to date if it is due, though nobody asks for a package.
    pub(super) async fn look(&self) {
        self.up_to_date(self.interval).await.ok();
    }

    fn look_up(&self, name: &str, wanted: Option<&str>) -> Result<Resolved, ResolveError> {
        let catalog = self.current().ok_or_else(|| ResolveError::NoCatalog(String::new()))?;
        let (name, version, published) = catalog.resolve(name, wanted)?;
        // A version never changes, so what it is stays true; where a channel points does not.
        if catalog.is_expired() && wanted != Some(version.as_str()) {
            return Err(ResolveError::Expired(catalog.expires));
        }
        Ok(Resolved { name, version, published })
    }

    /// Gets the catalog when the node starts, before a client waits for it.
    pub(super) async fn warm_up(&self) {
        if let Err(error) = self.up_to_date(self.interval).await {
            tracing::warn!(%error, "no catalog yet; it is asked for again when it is needed");
        }
    }

    /// Makes sure that the catalog was the newest within `max_age`. What is held stays if not.
    async fn up_to_date(&self, max_age: Duration) -> Result<(), OriginError> {
        if self.is_young(max_age) {
            return Ok(());
        }
        let _one_at_a_time = self.refreshing.lock().await;
        if self.is_young(max_age) {
            return Ok(());
        }
        tokio::time::sleep_until(self.settled_at.into()).await;
        let result = self.refresh(max_age).await;
        if let Err(error) = &result {
            tracing::warn!(%error, "the catalog could not be brought up to date");
        }
        let error = result.as_ref().err().map(ToString::to_string);
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let since = failing.take().map_or_else(jiff::Timestamp::now, |(since, _)| since);
        *failing = error.map(|error| (since, error));
        drop(failing);
        result
    }

    fn is_young(&self, max_age: Duration) -> bool {
        self.current().is_some() && self.age().is_some_and(|age| age < max_age)
    }

    fn note_checked(&self, age: Duration) {
        let at = Instant::now().checked_sub(age);
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// Of this node among those that ask the origin: hubs do.
    fn own_weight(&self) -> u32 {
        if self.net.is_hub() { self.standing.effective_weight() } else { 0 }
    }

    async fn refresh(&self, max_age: Duration) -> Result<(), OriginError> {
        let members = self.net.contacts().into_iter().map(|contact| (contact.node, contact.weight()));
        let ranked = rank(&self.key, members.chain([(self.net.me(), self.own_weight())]));
        for node in ranked.into_iter().take(3) {
            if node == self.net.me() {
                break;
            }
            match self.ask(node, max_age).await {
                Ok(()) => return Ok(()),
                Err(why) => tracing::debug!(%node, why, "has no catalog for us"),
            }
        }
        self.ask_origin().await
    }

    async fn ask_origin(&self) -> Result<(), OriginError> {
        self.keeper.refresh(Fetch::Origin(self.origin.clone())).await?;
        self.note_checked(Duration::ZERO);
        Ok(())
    }

    async fn ask(&self, node: NodeId, max_age: Duration) -> Result<(), String> {
        let timestamp_version = self.current().map_or(0, |catalog| catalog.version);
        let body = CatalogRequest { timestamp_version, max_age_ms: max_age.as_millis() as u64 };
        let request = Request { body: Some(request::Body::Catalog(body)) };
        let answer =
            self.net.ask_patiently(&node, &request, PATIENCE).await.map_err(|error| error.to_string())?;
        if answer.response.status() != response::Status::Ok {
            return Err(answer.response.detail.clone());
        }
        let age = Duration::from_millis(answer.response.age_ms);
        let bytes = answer.read_all(MAX_BUNDLE).await.map_err(|error| error.to_string())?;
        if !bytes.is_empty() {
            let bundle = CatalogBundle::decode(&bytes[..]).map_err(|error| error.to_string())?;
            let files = bundle.files.into_iter().map(|file| (file.name, file.content));
            let fetch = Fetch::from_peer(files).ok_or("it sent too many files")?;
            self.keeper.refresh(fetch).await.map_err(|error| error.to_string())?;
        }
        self.note_checked(age);
        Ok(())
    }

    /// The catalog for a member that has this version: nothing if that is the newest. With its age.
    pub(super) async fn for_member(
        &self,
        version: u64,
        max_age: Duration,
    ) -> Result<(Duration, Option<CatalogBundle>), OriginError> {
        // A member cannot make this node ask the origin more often than its own clients could.
        if !self.is_young(max_age.max(FRESH)) {
            let _one_at_a_time = self.refreshing.lock().await;
            if !self.is_young(max_age.max(FRESH)) {
                self.ask_origin().await?;
            }
        }
        let none = || OriginError::Failed("there is no catalog".into());
        let catalog = self.current().ok_or_else(none)?;
        let age = self.age().unwrap_or_default();
        if catalog.version <= version {
            return Ok((age, None));
        }
        let file = |(name, content): (&String, &bytes::Bytes)| CatalogFile {
            name: name.clone(),
            content: content.clone(),
        };
        Ok((age, Some(CatalogBundle { files: catalog.files().iter().map(file).collect() })))
    }
}
