//! Looking for a newer catalog: one node of the site asks the origin, the others ask it.
//!
//! Whoever cannot reach the origin hands on the catalog that it has, with its true age, so that a
//! machine which joins a site that is cut off learns what the site holds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;

use super::reach::UNKNOWN_AGE;
use super::{CatalogService, FRESH, home};
use crate::core::id::NodeId;
use crate::core::rank::rank;
use crate::core::wire::message::{CatalogBundle, CatalogFile, CatalogRequest, Request, request, response};
use crate::origin::{Fetch, OriginError};

/// The longest catalog that a member may send, in bytes.
const MAX_BUNDLE: u64 = 64 << 20;
/// A member has so long to answer: it may have to ask the origin itself.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of the ranking, so many are asked.
const ASKED: usize = 3;
/// The last try that failed, and when it ended: it serves those who have waited for their turn meanwhile.
pub(super) type OneAtATime = tokio::sync::Mutex<Option<(Instant, OriginError)>>;

fn shared(last: &Option<(Instant, OriginError)>, called: Instant) -> Result<(), OriginError> {
    match last {
        Some((ended, error)) if *ended >= called => Err(error.clone()),
        _ => Ok(()),
    }
}

impl CatalogService {
    /// Makes sure that the catalog was the newest within `max_age`. What is held stays if not. A try of
    /// another that failed after `called` is not repeated.
    pub(super) async fn check(
        self: Arc<Self>,
        max_age: Duration,
        called: Instant,
    ) -> Result<(), OriginError> {
        if self.origin.is_none() {
            return Ok(()); // There is none to be had.
        }
        let mut last = self.checking.lock().await;
        if self.is_young(max_age) {
            return Ok(());
        }
        shared(&last, called)?;
        self.begun(Some(Instant::now()));
        tokio::time::sleep_until(self.settled_at.into()).await;
        let result = self.refresh(max_age).await;
        if let Err(error) = &result {
            tracing::warn!(%error, "the catalog could not be brought up to date");
        }
        self.reach.note_check(result.as_ref().copied());
        self.begun(None);
        *last = result.clone().err().map(|error| (Instant::now(), error));
        result
    }

    pub(super) fn is_young(&self, max_age: Duration) -> bool {
        self.current().is_some() && self.age().is_some_and(|age| age < max_age)
    }

    /// Of this node among those that ask the origin: hubs do.
    fn own_weight(&self) -> u32 {
        if self.net.is_hub() { self.standing.effective_weight() } else { 0 }
    }

    async fn refresh(&self, max_age: Duration) -> Result<(), OriginError> {
        let (me, called) = (self.net.me(), Instant::now());
        let members = self.net.contacts().into_iter().map(|contact| (contact.node, contact.weight()));
        let ranked = rank(&self.key, members.chain([(me, self.own_weight())]));
        let (mut own, mut late) = (None, Vec::new());
        for node in ranked.into_iter().take(ASKED) {
            if node == me {
                match self.ask_origin(max_age, called).await {
                    Ok(()) => return Ok(()),
                    Err(error) => own = Some(error),
                }
                continue;
            }
            match self.ask(node, max_age, &mut late).await {
                Ok(age) if age <= max_age.max(FRESH) => return Ok(()),
                Ok(age) => tracing::debug!(%node, ?age, "has no newer catalog for us"),
                Err(why) => tracing::debug!(%node, why, "has no catalog for us"),
            }
        }
        let error = match own {
            Some(error) => error,
            None => match self.ask_origin(max_age, called).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            },
        };
        if error.is_transient() {
            self.take_late(late).await;
        }
        Err(error)
    }

    /// While the origin is out of reach, a member's catalog that is past its time is taken all the
    /// same, within the grace. What that gives up: whoever keeps a site from its origin, and is a member
    /// or owns the members' disks, can hold it at the last catalog for so much longer, and so keep it
    /// from seeing that a version was retired or a channel moved. It cannot make up a catalog, nor go
    /// back to one that is older than what a node has seen: signatures and versions are checked as ever.
    async fn take_late(&self, late: Vec<Fetch>) {
        for fetch in late {
            if let Err(error) = self.keeper.refresh_late(fetch, self.grace).await {
                tracing::debug!(%error, "a member's catalog is past its time");
            }
        }
    }

    /// Asks the origin now.
    ///
    /// # Errors
    /// [`OriginError`].
    pub(in crate::node) async fn try_origin(&self) -> Result<(), OriginError> {
        self.ask_origin(Duration::ZERO, Instant::now()).await
    }

    /// Asks the origin, unless that failed since `called`. Never waits for members, so that two who
    /// ask each other do not wait for each other.
    pub(super) async fn ask_origin(&self, max_age: Duration, called: Instant) -> Result<(), OriginError> {
        let mut last = self.at_origin.lock().await;
        if self.is_young(max_age) {
            return Ok(());
        }
        shared(&last, called)?;
        let origin = home::of(self.origin.as_ref())?.clone();
        let result = self.keeper.refresh(Fetch::Origin(origin)).await.map(drop);
        if result.is_ok() {
            self.reach.note_age(Duration::ZERO, None);
        }
        self.reach.note_own(result.as_ref().copied());
        *last = result.clone().err().map(|error| (Instant::now(), error));
        result
    }

    /// Asks a member, and takes what it sends; returns how old that is. What is past its time goes to
    /// `late`.
    async fn ask(&self, node: NodeId, max_age: Duration, late: &mut Vec<Fetch>) -> Result<Duration, String> {
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
            if let Err(error) = self.keeper.refresh(fetch.clone()).await {
                late.push(fetch);
                return Err(error.to_string());
            }
        }
        self.reach.note_age(age, Some(node));
        Ok(age)
    }

    /// Gets the catalog of a member that has one from a bundle; who is not connected to that member gets it
    /// from those who are.
    ///
    /// # Errors
    /// In words.
    pub(in crate::node) async fn learn(self: &Arc<Self>, from: NodeId) -> Result<(), String> {
        let mut late = Vec::new();
        let asked = self.ask(from, UNKNOWN_AGE, &mut late).await;
        if asked.is_err() && self.is_cut_off() {
            self.take_late(late).await;
        }
        match asked {
            Ok(_) => Ok(()),
            Err(_) => self.clone().check(FRESH, Instant::now()).await.map_err(|error| error.to_string()),
        }
    }

    /// The catalog for a member that has this version: nothing if that is the newest. With its age,
    /// which may be more than `max_age` while the origin is out of reach.
    pub(in crate::node) async fn for_member(
        &self,
        version: u64,
        max_age: Duration,
    ) -> Result<(Duration, Option<CatalogBundle>), OriginError> {
        // A member cannot make this node ask the origin more often than its own clients could; and it
        // does not wait for what has failed a moment ago.
        let holds = self.current().is_some();
        if !(holds && self.reach.own_failing().is_some()) {
            let asked = self.ask_origin(max_age.max(FRESH), Instant::now()).await;
            if let (Err(error), false) = (asked, holds) {
                return Err(error);
            }
        }
        let none = || OriginError::Failed("there is no catalog".into());
        let catalog = self.current().ok_or_else(none)?;
        let age = self.age().unwrap_or(UNKNOWN_AGE);
        if catalog.version <= version {
            return Ok((age, None));
        }
        let file = |(name, content): (&String, &bytes::Bytes)| CatalogFile {
            name: name.clone(),
            content: content.clone(),
        };
        Ok((age, Some(CatalogBundle { files: catalog.files().iter().map(file).collect() })))
    }

    /// Gets the catalog when the node starts, before a client waits for it; later on tries again now
    /// and then what fails, so that clients need not wait for that.
    pub(in crate::node) async fn keep(self: Arc<Self>) {
        self.clone().check(self.interval, Instant::now()).await.ok();
        loop {
            tokio::time::sleep(self.again).await;
            if self.reach.failing().is_some() {
                self.clone().check(self.interval, Instant::now()).await.ok();
            } else if self.reach.own_failing().is_some() {
                // Others reach it; whether this node does again is told by its own try alone.
                self.ask_origin(Duration::ZERO, Instant::now()).await.ok();
            }
        }
    }
}
