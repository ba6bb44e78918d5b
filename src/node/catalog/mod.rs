//! The catalog, and what a client means by a name. Keeping it current is in [`check`], what is known of
//! the way to the origin in [`reach`].

mod check;
mod reach;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::books::Books;
use super::standing::Standing;
use super::{Config, home, settle};
use crate::core::id::{BlobId, NodeId, PackageName, Version};
use crate::core::lapse::Lapse;
use crate::core::ledger::WanReason;
use crate::core::orders::Selector;
use crate::net::Net;
use crate::origin::catalog::{Published, Unresolved};
use crate::origin::{Catalog, Fetch, Keeper, Origin, OriginError};
use check::OneAtATime;
pub use reach::Failing;
use reach::Reach;

/// When a package is asked for that is not in the catalog, it is asked for anew unless it is
/// younger than this.
const FRESH: Duration = Duration::from_millis(250);
/// Who asks for something that is known waits so long for a newer catalog, and then takes what is known.
/// A line by satellite brings one in time.
const HASTE: Duration = Duration::from_secs(3);
/// Who asks for something that is not known waits so long to hear that it is there.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks whether something usable has come.
const LOOK: Duration = Duration::from_millis(50);
/// What failed is tried again after the interval, but not sooner and not later than this.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// How the ledger calls the catalog.
const LABEL: &str = "(catalog)";

/// Why a package cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The catalog has no such thing.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    /// The catalog has no such thing, and a newer one might.
    #[error(
        "{unresolved}. It may have been published since: the catalog could not be brought up to date since {} ({why})",
        minute(*since)
    )]
    Unsure {
        /// What the catalog that is here says.
        unresolved: Unresolved,
        /// Since when checks fail.
        since: Timestamp,
        /// Why.
        why: String,
    },
    /// There is no catalog to look into.
    #[error("there is no catalog yet: {0}")]
    NoCatalog(String),
    /// Nor will there ever be one.
    #[error("{}", home::NONE)]
    NoOrigin,
    /// The catalog is past its time.
    #[error(
        "the catalog has expired on {}{}; run 'branchline origin renew' where its keys are. Versions that this site holds can still be fetched by their number",
        minute(*expires),
        if *late { ", and the origin is out of reach for longer than offline_grace" } else { "" }
    )]
    Expired {
        /// When it was good until.
        expires: Timestamp,
        /// The grace, which holds while the origin is out of reach, is over too.
        late: bool,
    },
    /// The version is retired, and not in use here.
    #[error(
        "{label} was retired on {} and is not fetched any more; other versions are in 'branchline packages {name}'. 'branchline retire {name} {version} --undo' takes it back, where the origin's keys are",
        minute(*at), name = label.split('@').next().unwrap_or_default(), version = label.split('@').nth(1).unwrap_or_default()
    )]
    Retired {
        /// As `NAME@VERSION`.
        label: String,
        /// Since when.
        at: Timestamp,
    },
}

/// For people, to the minute.
fn minute(at: Timestamp) -> jiff::fmt::strtime::Display<'static> {
    at.strftime("%Y-%m-%d %H:%M UTC")
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
    origin: Option<Origin>,
    net: Net,
    interval: Duration,
    /// What failed is tried again after this.
    again: Duration,
    /// So long past its time a catalog is used while the origin is out of reach.
    grace: Lapse,
    standing: Arc<Standing>,
    key: [u8; 32],
    settled_at: Instant,
    reach: Reach,
    /// Since when a check is under way.
    begun: Mutex<Option<Instant>>,
    checking: OneAtATime,
    at_origin: OneAtATime,
}

impl CatalogService {
    /// # Errors
    /// As [`Origin::open`].
    pub(super) fn new(
        keeper: Keeper,
        origin: Option<&Origin>,
        net: Net,
        books: Arc<Books>,
        config: &Config,
        standing: Arc<Standing>,
    ) -> Result<Self, OriginError> {
        let sink = move |carried| books.carried(LABEL, WanReason::Revalidate, carried);
        let origin = origin.map(|origin| origin.metered(Arc::new(sink))).transpose()?;
        Ok(Self {
            keeper,
            origin,
            net,
            interval: config.catalog_interval,
            again: config.catalog_interval.clamp(AGAIN.0, AGAIN.1),
            grace: config.offline_grace,
            standing,
            key: *blake3::hash(b"catalog").as_bytes(),
            settled_at: Instant::now() + settle(config),
            reach: Reach::default(),
            begun: Mutex::default(),
            checking: OneAtATime::default(),
            at_origin: OneAtATime::default(),
        })
    }

    /// The newest catalog that was verified.
    pub fn current(&self) -> Option<Arc<Catalog>> {
        self.keeper.current()
    }

    /// The same, or why there is none.
    ///
    /// # Errors
    /// [`ResolveError::NoCatalog`] or [`ResolveError::NoOrigin`].
    pub(super) fn needed(&self) -> Result<Arc<Catalog>, ResolveError> {
        let nobody = || "the origin was not reached yet, and no member has one".to_owned();
        let why = || self.last_error().unwrap_or_else(nobody);
        match &self.origin {
            None => Err(ResolveError::NoOrigin),
            Some(_) => self.current().ok_or_else(|| ResolveError::NoCatalog(why())),
        }
    }

    /// Who verifies catalogs, and keeps the newest.
    pub(super) fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// Takes over a catalog that came on a disk. Past its time, it is taken within the grace, while the
    /// origin is out of reach.
    ///
    /// # Errors
    /// As [`Keeper::refresh`].
    pub(super) async fn take(&self, fetch: Fetch) -> Result<Arc<Catalog>, OriginError> {
        match self.keeper.refresh(fetch.clone()).await {
            Err(error) if self.is_cut_off() => {
                self.keeper.refresh_late(fetch, self.grace).await.map_err(|_| error)
            }
            result => result,
        }
    }

    /// Since when it was last known to be the newest.
    pub fn age(&self) -> Option<Duration> {
        self.reach.age()
    }

    /// How far this machine's clock is ahead of the origin's, as far as that has said.
    pub(super) fn clock_ahead(&self) -> Option<jiff::SignedDuration> {
        self.origin.as_ref()?.meter().clock_ahead()
    }

    /// Why the last check failed, if it did.
    pub fn last_error(&self) -> Option<String> {
        self.failing().map(|failing| failing.why)
    }

    /// Since when checks have failed, and why the last one did.
    pub fn failing(&self) -> Option<Failing> {
        self.reach.failing()
    }

    /// Since when this node's own tries at the origin have failed, while another's may not.
    pub fn own_failing(&self) -> Option<Failing> {
        self.reach.own_failing()
    }

    /// The member that said last that the catalog is the newest; none if this node asked for itself.
    pub(super) fn told_by(&self) -> Option<NodeId> {
        self.reach.by()
    }

    /// Until when channels are followed by the catalog that is here if the origin stays out of reach.
    pub(super) fn channels_until(&self) -> Option<Timestamp> {
        self.current()?.expires.saturating_add(self.grace.signed()).ok()
    }

    /// Nobody of the site reaches the origin, as far as is known.
    pub(super) fn is_cut_off(&self) -> bool {
        self.failing().is_some_and(|failing| failing.out_of_reach)
    }

    /// Finds a package, looking for a newer catalog when that may help. Retired versions are found, too.
    ///
    /// What is known is not waited for: a check that takes long goes on behind the answer, and one that
    /// has failed is tried again without anybody waiting.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub(super) async fn resolve(
        self: &Arc<Self>,
        name: &str,
        wanted: Option<&str>,
    ) -> Result<Resolved, ResolveError> {
        let called = Instant::now();
        let known = || self.look_up(name, wanted).is_ok();
        let at_once = self.is_young(self.interval) || (self.failing().is_some() && known());
        if !at_once {
            self.wait_for_check(self.interval, called, known).await;
        }
        let expired = self.current().is_some_and(|catalog| catalog.is_expired());
        match self.look_up(name, wanted) {
            Ok(found) if !expired || self.failing().is_some() => return Ok(found),
            _ => self.wait_for_check(FRESH, called, known).await,
        }
        self.look_up(name, wanted).map_err(|error| self.unsure(error))
    }

    /// Waits for a check, as long as it takes while the answer is not `known`, and for a moment if it is.
    /// Who stops waiting leaves the check to go on.
    async fn wait_for_check(self: &Arc<Self>, max_age: Duration, called: Instant, known: impl Fn() -> bool) {
        let under_way = *self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let haste = under_way.unwrap_or(called).max(self.settled_at) + HASTE;
        let mut check = tokio::spawn(self.clone().check(max_age, called));
        if tokio::time::timeout_at(haste.into(), &mut check).await.is_ok() {
            return;
        }
        let end = Instant::now() + PATIENCE;
        while !known() && Instant::now() < end {
            if tokio::time::timeout(LOOK, &mut check).await.is_ok() {
                return;
            }
        }
    }

    /// The catalog, after a look for a newer one if this does not have the blob: who leads a flight need not
    /// be who has looked the package up.
    pub(super) async fn with(self: &Arc<Self>, blob: &BlobId) -> Option<Arc<Catalog>> {
        let known = || self.current().is_some_and(|catalog| catalog.label_of(blob).is_some());
        if !known() {
            self.wait_for_check(FRESH, Instant::now(), known).await;
        }
        self.current()
    }

    /// Looks whether the origin can be reached, unless that is known.
    pub(super) async fn probe(self: &Arc<Self>) {
        if !self.is_cut_off() {
            self.clone().check(FRESH, Instant::now()).await.ok();
        }
    }

    fn begun(&self, at: Option<Instant>) {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// What is not in a catalog that could not be brought up to date may be there all the same.
    fn unsure(&self, error: ResolveError) -> ResolveError {
        match (error, self.failing()) {
            (ResolveError::Unresolved(unresolved), Some(Failing { since, why, .. })) => {
                ResolveError::Unsure { unresolved, since, why }
            }
            (error, _) => error,
        }
    }

    /// What a name means by the catalog that is here, however old that is: for orders, which are
    /// looked at again and again.
    pub(super) fn means(&self, selector: &Selector) -> Result<Resolved, ResolveError> {
        let catalog = self.needed()?;
        let wanted = selector.wanted.as_ref().map(Version::as_str);
        let (name, version, published) = catalog.resolve(selector.name.as_str(), wanted)?;
        Ok(Resolved { name, version, published })
    }

    /// Brings the catalog up to date if it is due, though nobody asks for a package.
    pub(super) async fn look(self: &Arc<Self>) {
        // What fails is tried again in any case.
        if self.failing().is_none() {
            self.clone().check(self.interval, Instant::now()).await.ok();
        }
    }

    fn look_up(&self, name: &str, wanted: Option<&str>) -> Result<Resolved, ResolveError> {
        let catalog = self.needed()?;
        let (name, version, published) = catalog.resolve(name, wanted)?;
        // A version never changes, so what it is stays true; where a channel points does not.
        if catalog.is_expired() && wanted != Some(version.as_str()) {
            let cut_off = self.is_cut_off();
            if !cut_off || !catalog.is_good_within(self.grace) {
                return Err(ResolveError::Expired { expires: catalog.expires, late: cut_off });
            }
        }
        Ok(Resolved { name, version, published })
    }
}
