//! Bringing an object to this node: from its home, or as its home.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::super::{Node, blocking};
use super::{Came, Live, ObjectError, Progress, Wanted, label};
use crate::core::id::NodeId;
use crate::core::rank::rank;
use crate::core::upstream::record::Record;
use crate::core::upstream::{home_key, segment};
use crate::core::wire::message::{ObjectRequest, Request, request, response};
use crate::origin::upstream::UpstreamError;
use crate::store::StoreError;

/// A home answers within this, with news or without.
pub(super) const HOME_ANSWERS: Duration = Duration::from_secs(8);
const PATIENCE: Duration = Duration::from_secs(12);
/// The longest answer: the record of the largest object, and little content.
const LONGEST: u64 = 32 << 20;
/// Two that begin at once have heard of each other after so long.
const SAME_MOMENT: Duration = Duration::from_millis(150);
/// So many are asked whether they have the client's login, too.
const LOGINS_ASKED: usize = 8;
/// Content up to this comes along with the news, in bytes.
pub(super) const INLINE: usize = 256 << 10;

/// News of an object, as they go over the wire.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct News {
    /// What is known of it, without the segments that the asker knows; none before anything is known.
    pub(super) record: Option<Record>,
    /// The segments are those after so many that the asker knows.
    pub(super) from: usize,
    pub(super) came: Came,
    /// How it ended.
    pub(super) end: Option<End>,
    /// This node pulls it, or waits for whoever does.
    pub(super) under_way: bool,
}

/// How it ended, for other nodes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum End {
    Done,
    Status(u16),
    Wrong(String),
    Unreachable(String),
    Failed(String),
}

/// Why one home did not do.
enum Lost {
    /// Another may.
    Home(String),
    /// None would.
    Object(ObjectError),
}

/// Brings it, and says how that ended.
pub(super) async fn bring(node: Node, wanted: Wanted, live: Arc<Live>, home: bool) {
    let result = Bringing { node: &node, wanted: &wanted, live: &live }.bring(home).await;
    if let Err(error) = &result {
        tracing::info!(upstream = wanted.upstream, path = wanted.path, %error, "an object was not brought");
    }
    live.home.store(false, Ordering::Relaxed);
    live.progress.send_modify(|progress| progress.end = Some(result));
}

struct Bringing<'a> {
    node: &'a Node,
    wanted: &'a Wanted,
    live: &'a Live,
}

impl Bringing<'_> {
    async fn bring(&self, home: bool) -> Result<(), ObjectError> {
        let shelf = self.node.inner.upstreams.shelf.clone();
        let key = self.wanted.key();
        if let Some(record) = shelf.get(&key).filter(|record| record.complete && self.wanted.is_fresh(record))
        {
            return self.adopt(record, Came::Held);
        }
        if home {
            return self.pull().await;
        }
        // Whoever starts together with its site finds it first.
        while !self.node.is_ready() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut lost = BTreeSet::new();
        loop {
            let best = self.best(&lost);
            // Most have no client with the same login.
            let enough = self.wanted.login.is_some() && lost.len() >= LOGINS_ASKED;
            if best == self.node.me() || enough {
                return self.pull().await;
            }
            match self.follow(best).await {
                Ok(()) => return Ok(()),
                Err(Lost::Object(error)) => return Err(error),
                Err(Lost::Home(why)) => {
                    tracing::debug!(node = %best, why, path = self.wanted.path, "another home is asked");
                    lost.insert(best);
                }
            }
        }
    }

    fn at(&self, home: NodeId) -> (NodeId, String) {
        (home, self.wanted.upstream.clone())
    }

    /// The node that is to bring it.
    fn best(&self, lost: &BTreeSet<NodeId>) -> NodeId {
        let contacts = self.node.inner.net.contacts().into_iter();
        let others = contacts.map(|contact| (contact.node, contact.weight()));
        let able: Vec<_> = others.filter(|(_, weight)| *weight > 0).collect();
        let key = home_key(&self.wanted.upstream, &self.wanted.key(), able.len() + 1);
        let (silent, now) = (&self.node.inner.upstreams.silent, Instant::now());
        let may =
            able.into_iter().filter(|(node, _)| !lost.contains(node) && !silent.is_out(&self.at(*node), now));
        let ranked = rank(&key, may.chain([(self.node.me(), self.node.weight_to_lead())]));
        ranked.first().copied().unwrap_or(self.node.me())
    }

    async fn pull(&self) -> Result<(), ObjectError> {
        self.live.home.store(true, Ordering::Relaxed);
        if let Some(other) = self.brought_by().await {
            self.live.home.store(false, Ordering::Relaxed);
            match self.follow(other).await {
                Ok(()) => return Ok(()),
                Err(Lost::Object(error)) => return Err(error),
                Err(Lost::Home(why)) => tracing::debug!(node = %other, why, "it was bringing an object"),
            }
            self.live.home.store(true, Ordering::Relaxed);
        }
        super::pull::Pull::new(self.node, self.wanted, self.live).run().await
    }

    /// The member that brings it already. Where a client's login is needed that is whoever had it first, which
    /// need not be who ranks best; of several that begin in the same moment the best goes on.
    async fn brought_by(&self) -> Option<NodeId> {
        self.wanted.login.as_ref()?;
        let (me, key) = (self.node.me(), self.wanted.key());
        for wait in [SAME_MOMENT, Duration::ZERO] {
            let others = super::pull::ask_members(self.node, self.wanted).await.into_iter();
            let others: Vec<_> =
                others.filter(|(_, news)| news.under_way).map(|(node, _)| (node, 100)).collect();
            let best = rank(key.as_bytes(), others.iter().copied().chain([(me, 100)])).first().copied();
            match others.first() {
                None => return None,
                Some(_) if best != Some(me) => return best,
                // Who has begun in the same moment gives way, and who had begun before does not.
                Some((other, _)) if wait.is_zero() => return Some(*other),
                Some(_) => tokio::time::sleep(wait).await,
            }
        }
        None
    }

    /// What is on the site already.
    fn adopt(&self, record: Record, came: Came) -> Result<(), ObjectError> {
        show(&self.live.progress, record, came);
        Ok(())
    }

    /// Takes over what its home tells, until all of it has come.
    async fn follow(&self, home: NodeId) -> Result<(), Lost> {
        loop {
            if !self.live.is_wanted() {
                return Err(Lost::Object(ObjectError::Failed("nobody waits for it any more".into())));
            }
            let known = self.live.progress.borrow().record.clone();
            let asked = self.ask(home, known.as_deref()).await;
            // Who says nothing, or has no such upstream, is not asked for each of its objects anew.
            if self.wanted.login.is_none() {
                self.node.inner.upstreams.silent.note(&self.at(home), asked.is_ok(), Instant::now());
            }
            let (news, content) = asked.map_err(Lost::Home)?;
            if let Some(record) = news.record {
                self.take_over(home, known, record, (news.from, news.came), content).await?;
            }
            match news.end {
                None => {}
                Some(End::Done) => {
                    self.keep().await;
                    return Ok(());
                }
                Some(end) => return Err(self.lost(end)),
            }
        }
    }

    fn lost(&self, end: End) -> Lost {
        let (upstream, path) = (self.wanted.upstream.clone(), self.wanted.path.clone());
        Lost::Object(ObjectError::Upstream(match end {
            End::Done => return Lost::Home("it says nothing".into()),
            End::Status(status) => UpstreamError::Status { upstream, path, status },
            End::Wrong(why) => UpstreamError::Wrong { upstream, path, why },
            // Another node's way there, or its disk, may be better.
            End::Unreachable(why) | End::Failed(why) => return Lost::Home(why),
        }))
    }

    async fn ask(&self, home: NodeId, known: Option<&Record>) -> Result<(News, Vec<u8>), String> {
        let segments = known.map_or(&[][..], |record| &record.segments);
        let last = segments.last().map_or(Vec::new(), |segment| segment.blob.as_bytes().to_vec());
        let body = ObjectRequest {
            key: self.wanted.key().as_bytes().to_vec().into(),
            json: serde_json::to_vec(self.wanted).map_err(|error| error.to_string())?.into(),
            from: segments.len() as u32,
            last: last.into(),
        };
        ask(self.node, home, body).await
    }

    async fn take_over(
        &self,
        home: NodeId,
        known: Option<Arc<Record>>,
        mut record: Record,
        (from, came): (usize, Came),
        content: Vec<u8>,
    ) -> Result<(), Lost> {
        let fresh = record.segments.clone();
        let before = known.as_deref().map_or(&[][..], |known| &known.segments);
        if !record.continues(before, from) || !record.is_plausible() {
            return Err(Lost::Home("it says what makes no sense".into()));
        }
        // What its home held it against is the home's word: whoever reads it here finds out.
        record.digest = None;
        let mut content = &content[..];
        for piece in fresh.iter().take_while(|_| !content.is_empty()) {
            let Some((bytes, rest)) = content.split_at_checked(piece.size as usize) else { break };
            self.store(home, bytes).await.map_err(|error| Lost::Home(error.to_string()))?;
            content = rest;
        }
        self.node.inner.upstreams.shelf.note(&label(&self.wanted.upstream), &record);
        show(&self.live.progress, record, came);
        Ok(())
    }

    /// Content that came with the news.
    async fn store(&self, home: NodeId, bytes: &[u8]) -> Result<(), StoreError> {
        let source = crate::core::ledger::Source::Peer(home);
        super::segments::store(self.node, self.wanted, self.live, bytes.to_vec(), source).await.map(drop)
    }

    async fn keep(&self) {
        let Some(record) = self.live.progress.borrow().record.clone() else { return };
        let (shelf, wanted) = (self.node.inner.upstreams.shelf.clone(), self.wanted.clone());
        blocking(move || shelf.put(&wanted, &record)).await;
    }
}

/// Shows those who wait what is known now. Where that is not what was known before, and more, it is
/// another object.
pub(super) fn show(progress: &watch::Sender<Progress>, record: Record, came: Came) {
    progress.send_modify(|progress| {
        let goes_on = |before: &Arc<Record>| record.segments.starts_with(&before.segments);
        if !progress.record.as_ref().is_none_or(goes_on) {
            progress.generation += 1;
        }
        progress.record = Some(Arc::new(record));
        progress.came = came;
    });
}

/// Asks a member for news of an object.
pub(super) async fn ask(node: &Node, member: NodeId, body: ObjectRequest) -> Result<(News, Vec<u8>), String> {
    let request = Request { body: Some(request::Body::Object(body)) };
    let answer = node.inner.net.ask_patiently(&member, &request, PATIENCE).await;
    let answer = answer.map_err(|error| error.to_string())?;
    if answer.response.status() != response::Status::Ok {
        return Err(answer.response.detail.clone());
    }
    let bytes = tokio::time::timeout(PATIENCE, answer.read_all(LONGEST)).await;
    let bytes = bytes.map_err(|_| "it fell silent".to_owned())?.map_err(|error| error.to_string())?;
    let malformed = || "it sent a malformed answer".to_owned();
    let (length, rest) = bytes.split_at_checked(4).ok_or_else(malformed)?;
    let length = u32::from_be_bytes(length.try_into().map_err(|_| malformed())?) as usize;
    let (json, content) = rest.split_at_checked(length).ok_or_else(malformed)?;
    let news = serde_json::from_slice(json).map_err(|_| malformed())?;
    if content.len() > INLINE + segment::length(0) {
        return Err(malformed());
    }
    Ok((news, content.to_vec()))
}
