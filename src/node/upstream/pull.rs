//! Pulling an object from its upstream, as its home.

use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use bytes::BytesMut;
use futures::StreamExt;

use super::super::passage::Passage;
use super::super::{Node, blocking};
use super::bring::{self, News};
use super::wanted::now_ms;
use super::{Came, Live, ObjectError, Wanted, Way, label, segments};
use crate::core::flight::Urgency;
use crate::core::id::NodeId;
use crate::core::ledger::{Source, WanReason};
use crate::core::upstream::record::{MOST_SEGMENTS, Record};
use crate::core::upstream::segment;
use crate::core::upstream::{Digest, hub};
use crate::core::wire::message::ObjectRequest;
use crate::origin::upstream::{Answer, Fetch, Kind, UpstreamError};

/// Tries in a row that bring nothing, before clients are told.
const TRIES: u32 = 4;
/// Who could have what is held is not kept waiting for the upstream for longer than this.
const HELD_WAITS: Duration = Duration::from_secs(6);
const PAUSE: Duration = Duration::from_millis(500);
/// Members are asked what they hold of it so many at a time.
const AT_ONCE: usize = 16;
/// How long an upstream may be out of reach and what is held of it is used all the same, unless it says
/// otherwise.
const GRACE: Duration = Duration::from_secs(30 * 24 * 3600);

/// The way of one object over the WAN.
pub(super) struct Pull<'a> {
    pub(super) node: &'a Node,
    pub(super) wanted: &'a Wanted,
    live: &'a Live,
    pub(super) way: Way,
    pub(super) record: Record,
    hasher: Option<digest::Context>,
    buffer: BytesMut,
    /// What has come so far came compressed.
    packed: bool,
    /// A recipe has failed: it is brought as shipped.
    pub(super) as_shipped: bool,
}

/// What makes the hash that a digest names.
pub(super) fn hasher(digest: &Digest) -> digest::Context {
    digest::Context::new(match digest {
        Digest::Sha1(_) => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        Digest::Sha256(_) => &digest::SHA256,
        Digest::Sha512(_) => &digest::SHA512,
    })
}

/// What the members hold of it.
pub(super) async fn ask_members(node: &Node, wanted: &Wanted) -> Vec<(NodeId, News)> {
    let key = wanted.key();
    let ask = |member: NodeId| async move {
        let body = ObjectRequest { key: key.as_bytes().to_vec().into(), ..ObjectRequest::default() };
        let ask = bring::ask(node, member, body);
        let news = tokio::time::timeout(Duration::from_millis(800), ask).await.ok()?.ok()?;
        Some((member, news.0))
    };
    let members = node.inner.net.contacts().into_iter().map(|contact| ask(contact.node));
    futures::stream::iter(members).buffer_unordered(AT_ONCE).filter_map(|it| async { it }).collect().await
}

impl<'a> Pull<'a> {
    pub(super) fn new(node: &'a Node, wanted: &'a Wanted, live: &'a Live) -> Self {
        // Who asks was told before if there is no such upstream.
        let way = node.inner.upstreams.ways[&wanted.upstream].clone();
        let hasher = wanted.digest.as_ref().map(hasher);
        let record = Record { digest: wanted.digest, ..Record::default() };
        let buffer = BytesMut::new();
        Self { node, wanted, live, way, record, hasher, buffer, packed: false, as_shipped: false }
    }

    /// # Errors
    /// [`ObjectError`], for all who wait.
    pub(super) async fn run(mut self) -> Result<(), ObjectError> {
        let own = self.node.inner.upstreams.shelf.get(&self.wanted.key());
        let others = ask_members(self.node, self.wanted).await;
        let known = others.into_iter().filter_map(|(_, news)| news.record).filter(Record::is_plausible);
        // A member's word of a digest is not this node's.
        let known = known.map(|record| Record { digest: None, ..record });
        let complete = known.chain(own).filter(|record| record.complete);
        let newest = complete.max_by_key(|record| record.checked_ms);
        if let Some(record) = newest.as_ref().filter(|record| self.wanted.is_fresh(record)) {
            return self.finish(record.clone(), Came::Held).await;
        }
        if let Some(closed) = self.node.wan_closed(Urgency::Foreground) {
            return match newest.filter(|record| self.may_be_stale(record)) {
                Some(record) => {
                    self.show(record, Came::Stale);
                    Ok(())
                }
                None => Err(ObjectError::Closed(closed)),
            };
        }
        match self.ask_upstream(newest.as_ref()).await {
            Err(ObjectError::Upstream(error)) if error.is_transient() => match newest {
                Some(record) if self.may_be_stale(&record) => {
                    tracing::warn!(%error, path = self.wanted.path, "served as it was when its upstream was last reached");
                    self.show(record, Came::Stale);
                    Ok(())
                }
                _ => Err(error.into()),
            },
            result => result,
        }
    }

    fn may_be_stale(&self, record: &Record) -> bool {
        let reuse = record.reuse();
        let nothing_came = self.record.segments.is_empty();
        nothing_came && !reuse.must_revalidate && record.age(now_ms()) < reuse.stale_if_error.unwrap_or(GRACE)
    }

    async fn ask_upstream(&mut self, held: Option<&Record>) -> Result<(), ObjectError> {
        let mut failures = 0;
        let (outages, began) = (&self.node.inner.upstreams.outages, Instant::now());
        if held.is_some() && outages.is_out(&self.wanted.upstream, began) {
            return Err(self.unreachable("it was not a moment ago"));
        }
        loop {
            let (before, by_recipe) = (self.record.came(), !self.as_shipped);
            let result = self.attempt(held).await;
            if by_recipe && self.as_shipped {
                continue;
            }
            let reached = !matches!(result, Err(ObjectError::Upstream(UpstreamError::Unreachable { .. })));
            outages.note(&self.wanted.upstream, reached, Instant::now());
            match result {
                Err(ObjectError::Upstream(error)) if error.is_transient() => {
                    failures = if self.record.came() > before { 1 } else { failures + 1 };
                    // What was held before is better than waiting for long.
                    let long = failures > 1 || began.elapsed() > PAUSE;
                    if failures >= TRIES || (held.is_some() && long) || !self.live.is_wanted() {
                        return Err(error.into());
                    }
                    tokio::time::sleep(PAUSE * failures).await;
                }
                Err(error) => {
                    self.drop_all(&error).await;
                    return Err(error);
                }
                Ok(()) => return Ok(()),
            }
        }
    }

    /// One request. What has come stays, and the next one goes on from there.
    async fn attempt(&mut self, held: Option<&Record>) -> Result<(), ObjectError> {
        let validator = |record: &Record, name: &str| record.header(name).map(str::to_owned);
        let came = self.record.came() + self.buffer.len() as u64;
        let strong = validator(&self.record, "etag").filter(|etag| !etag.starts_with("W/"));
        let resume =
            strong.or_else(|| validator(&self.record, "last-modified")).filter(|_| came > 0 && !self.packed);
        let conditional = held.filter(|_| came == 0);
        let fetch = Fetch {
            path: self.wanted.path.clone(),
            accept: self.wanted.accept.clone(),
            known_etag: conditional.and_then(|record| validator(record, "etag")),
            known_since: conditional.and_then(|record| validator(record, "last-modified")),
            no_older_s: self.wanted.no_older_s.filter(|_| self.wanted.digest.is_none()),
            resume: resume.map(|validator| (came, validator)),
            head: false,
            whether: false,
            login: self.wanted.login.clone(),
            text: self.wanted.digest.is_none() && self.wanted.expected_s.is_some(),
            by_recipe: self.asks_hub(came),
        };
        // A hub that has something newer may have to look into it first.
        let waits = conditional.is_none() || fetch.by_recipe.is_some();
        let limit = if waits { Duration::MAX } else { HELD_WAITS };
        let late = |_| self.unreachable(&format!("no answer within {} s", HELD_WAITS.as_secs()));
        if let Some(held) = conditional {
            let said = tokio::time::timeout(limit, self.still(held, &fetch)).await.map_err(late)??;
            if let Some(said) = said {
                return self.checked(held, said).await;
            }
        }
        let mut passage = self.way.passage(self.node);
        let asked = async {
            passage.waits_its_turn(Some(0)).await;
            self.way.client.get(&fetch).await
        };
        let answer = tokio::time::timeout(limit, asked).await;
        let mut answer = answer.map_err(late)??;
        if answer.status == 304 {
            let Some(held) = held else {
                return Err(self.wrong("it says 'not modified' to whoever has nothing"));
            };
            return self.checked(held, answer).await;
        }
        passage.expects(answer.size.map(|size| size.saturating_sub(answer.start)));
        let by_recipe = answer.status == hub::USED;
        self.packed = answer.is_packed();
        let skip = if answer.start == came { 0 } else { self.skip(came, &answer)? };
        if came == 0 {
            self.record.headers = std::mem::take(&mut answer.headers);
            self.expect_what_is_told();
            self.record.size = answer.size.filter(|_| !by_recipe);
            (self.record.checked_ms, self.record.age_s) = (now_ms(), answer.age_s);
            self.show(self.record.clone(), Came::Pulled);
        }
        if by_recipe {
            return self.rebuild(answer, passage).await;
        }
        self.read(answer, passage, skip).await
    }

    /// A registry tells by a question without an answer's body what a tag names now; that is no pull in its
    /// own books. `None` if that is something else than what is held, or cannot be told so.
    async fn still(&self, held: &Record, fetch: &Fetch) -> Result<Option<Answer>, ObjectError> {
        let told = "docker-content-digest";
        let head = Fetch { head: true, known_etag: None, known_since: None, ..fetch.clone() };
        if self.wanted.digest.is_some() {
            // It never changes; whether the login is still good for it may.
            return match self.way.client.get(&Fetch { whether: true, ..head }).await {
                Ok(mut said) => {
                    said.headers.clear();
                    Ok(Some(said))
                }
                // Some answer no such question.
                Err(UpstreamError::Status { status: 405 | 501, .. }) => Ok(None),
                Err(error) => Err(error.into()),
            };
        }
        let Some(digest) = held.header(told).filter(|_| self.is_registry()) else { return Ok(None) };
        let said = self.way.client.get(&head).await?;
        let same = said.headers.iter().any(|(name, value)| name == told && value == digest);
        Ok(same.then_some(said))
    }

    fn is_registry(&self) -> bool {
        self.way.client.upstream().kind == Kind::Oci
    }

    /// What is held is what the upstream has.
    async fn checked(&self, held: &Record, said: Answer) -> Result<(), ObjectError> {
        let mut record = held.clone();
        for (name, value) in said.headers {
            record.headers.retain(|(known, _)| *known != name);
            record.headers.push((name, value));
        }
        (record.checked_ms, record.age_s) = (now_ms(), said.age_s);
        self.finish(record, Came::Checked).await
    }

    /// A registry names the digest of what it is about to send, whatever it was asked for.
    fn expect_what_is_told(&mut self) {
        let told = self.record.header("docker-content-digest").and_then(|digest| digest.parse().ok());
        if self.wanted.digest.is_none() && self.is_registry() {
            self.record.digest = told;
            self.hasher = told.as_ref().map(hasher);
        }
    }

    /// The upstream begins anew: that is the same object if its digest is known, or its validator is what
    /// it was.
    fn skip(&self, came: u64, answer: &Answer) -> Result<u64, ObjectError> {
        let validator = |headers: &[(String, String)]| {
            headers.iter().find(|(name, _)| name == "etag").map(|(_, value)| value.clone())
        };
        let same = validator(&self.record.headers);
        if self.wanted.digest.is_some() || (same.is_some() && same == validator(&answer.headers)) {
            return Ok(came);
        }
        Err(ObjectError::Changed(self.wanted.path.clone()))
    }

    async fn read(
        &mut self,
        mut answer: Answer,
        mut passage: Passage,
        mut skip: u64,
    ) -> Result<(), ObjectError> {
        let (label, mut known) = (label(&self.wanted.upstream), 0);
        while let Some(mut piece) = answer.next().await? {
            let crossed = answer.came() - std::mem::replace(&mut known, answer.came());
            passage.pass(crossed).await;
            self.node.inner.books.chunk(&label, crossed);
            let again = skip.min(piece.len() as u64);
            if again > 0 {
                skip -= again;
                self.node.inner.books.duplicate(&label, WanReason::Takeover, again);
                piece = piece.slice(again as usize..);
            }
            self.take_in(&piece).await?;
        }
        self.end().await
    }

    /// The next bytes of the object.
    pub(super) async fn take_in(&mut self, bytes: &[u8]) -> Result<(), ObjectError> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        // The last one is not shown before the digest is right.
        while self.buffer.len() > segment::length(self.record.segments.len()) {
            let length = segment::length(self.record.segments.len());
            self.cut(length).await?;
            self.show(self.record.clone(), Came::Pulled);
        }
        match self.live.is_wanted() {
            true => Ok(()),
            false => Err(ObjectError::Failed("nobody waits for it any more".into())),
        }
    }

    /// It will be so long.
    pub(super) fn expect(&mut self, size: u64) {
        self.record.size = Some(size);
        self.show(self.record.clone(), Came::Pulled);
    }

    /// All bytes have come.
    pub(super) async fn end(&mut self) -> Result<(), ObjectError> {
        let came = self.record.came() + self.buffer.len() as u64;
        if let Some(size) = self.record.size.filter(|size| *size != came) {
            return Err(self.wrong(&format!("{came} bytes, where it said {size}")));
        }
        if let (Some(hasher), Some(wanted)) = (self.hasher.take(), self.record.digest)
            && hasher.finish().as_ref() != wanted.bytes()
        {
            return Err(
                self.wrong(&format!("its {} is not the one that its index names", wanted.algorithm()))
            );
        }
        if !self.buffer.is_empty() || self.record.segments.is_empty() {
            self.cut(self.buffer.len()).await?;
        }
        let record = Record { size: Some(came), complete: true, ..self.record.clone() };
        self.finish(record, Came::Pulled).await
    }

    fn unreachable(&self, why: &str) -> ObjectError {
        UpstreamError::Unreachable { upstream: self.wanted.upstream.clone(), why: why.to_owned() }.into()
    }

    fn wrong(&self, why: &str) -> ObjectError {
        let (upstream, path) = (self.wanted.upstream.clone(), self.wanted.path.clone());
        UpstreamError::Wrong { upstream, path, why: why.to_owned() }.into()
    }

    /// Makes a segment of the first bytes of what has come.
    async fn cut(&mut self, length: usize) -> Result<(), ObjectError> {
        if self.record.segments.len() >= MOST_SEGMENTS {
            return Err(ObjectError::Failed("it is too large".into()));
        }
        let content = self.buffer.split_to(length).to_vec();
        let source = Source::Wan(WanReason::Cold);
        let stored = segments::store(self.node, self.wanted, self.live, content, source).await;
        self.record.segments.push(stored.map_err(|error| ObjectError::Failed(error.to_string()))?);
        Ok(())
    }

    fn show(&self, record: Record, came: Came) {
        self.node.inner.upstreams.shelf.note(&label(&self.wanted.upstream), &record);
        bring::show(&self.live.progress, record, came);
    }

    /// All of it is here.
    async fn finish(&self, record: Record, came: Came) -> Result<(), ObjectError> {
        if !record.reuse().no_sharing || self.wanted.digest.is_some() {
            let (shelf, wanted, kept) =
                (self.node.inner.upstreams.shelf.clone(), self.wanted.clone(), record.clone());
            blocking(move || shelf.put(&wanted, &kept)).await;
        }
        self.show(record, came);
        Ok(())
    }

    /// Nothing of what is wrong is kept.
    async fn drop_all(&mut self, error: &ObjectError) {
        if !matches!(error, ObjectError::Upstream(UpstreamError::Wrong { .. }) | ObjectError::Changed(_)) {
            return;
        }
        tracing::warn!(%error, "dropped");
        self.live.tickets.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
        let (store, segments) = (self.node.inner.store.clone(), std::mem::take(&mut self.record.segments));
        blocking(move || segments.iter().for_each(|segment| drop(store.remove(&segment.blob)))).await;
    }
}
