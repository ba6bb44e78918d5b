//! What members are told of an object.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::super::{Node, blocking};
use super::bring::{End, HOME_ANSWERS, INLINE, News};
use super::{Live, ObjectError, Progress, Wanted};
use crate::core::id::{BlobId, NodeId};
use crate::core::upstream::ObjectKey;
use crate::core::upstream::record::{Record, Segment};
use crate::core::wire::message::ObjectRequest;
use crate::origin::upstream::UpstreamError;

/// The longest question, in bytes.
const LONGEST: usize = 16 << 10;

impl Node {
    /// What a member is told; nothing if it asks for nonsense, or for what this node may not bring.
    pub(in crate::node) async fn object_of_member(
        &self,
        from: NodeId,
        asked: &ObjectRequest,
    ) -> Option<Vec<u8>> {
        let key = ObjectKey::from_slice(&asked.key)?;
        if asked.json.is_empty() {
            return Some(encode(&self.held_object(&key), &[]));
        }
        let wanted: Wanted = serde_json::from_slice(asked.json.get(..asked.json.len().min(LONGEST))?).ok()?;
        let wanted = self.within_realm(wanted);
        self.upstream(&wanted.upstream)?;
        // A key of another realm: the asker has other credentials or a client's login, or this node has none.
        let wanted = match wanted.key() == key {
            true => wanted,
            false => self.inner.upstreams.logins.of_key(&wanted, &key)?,
        };
        let live = self.bring(&wanted, true);
        live.note_asked();
        let progress = wait_for_news(&live, asked).await;
        live.note_asked();
        let (news, segments) = news(&progress, asked, &live);
        let content = self.inline(from, &segments, &news).await;
        Some(encode(&news, &content))
    }

    /// What is held of it, and whether it is on its way.
    fn held_object(&self, key: &ObjectKey) -> News {
        let live = self.inner.upstreams.live().get(key).cloned();
        let progress = live.as_ref().map(|live| live.progress.borrow().clone());
        let under_way = live.is_some_and(|live| live.home.load(std::sync::atomic::Ordering::Relaxed));
        let coming = progress.and_then(|progress| progress.record).map(|record| Record::clone(&record));
        News { record: self.inner.upstreams.shelf.get(key).or(coming), under_way, ..News::default() }
    }

    /// The content of new segments, if there is little.
    async fn inline(&self, to: NodeId, segments: &[Segment], news: &News) -> Vec<u8> {
        let size: u64 = segments.iter().map(|segment| segment.size).sum();
        if news.record.is_none() || size > INLINE as u64 {
            return Vec::new();
        }
        let (store, blobs) = (self.inner.store.clone(), segments.to_vec());
        let read = move || {
            let mut content = Vec::new();
            for segment in blobs {
                let blob = store.get(&segment.blob)?;
                let mut index = 0;
                while index < blob.manifest().count() {
                    let bytes = blob.read_run(index, u64::MAX).ok()?;
                    let end = blob.manifest().chunk(index)?.offset + bytes.len() as u64;
                    content.extend_from_slice(&bytes);
                    index = blob.manifest().chunk_at(end).unwrap_or(blob.manifest().count());
                }
            }
            Some(content)
        };
        let content = blocking(read).await.flatten().unwrap_or_default();
        if let Some(segment) = segments.first().filter(|_| !content.is_empty()) {
            self.inner.books.served(&self.label(&segment.blob), to, content.len() as u64);
            self.inner.dealings.sent(to, content.len() as u64);
        }
        content
    }
}

/// Waits until there is more than the asker knows, or for a while.
async fn wait_for_news(live: &Arc<Live>, asked: &ObjectRequest) -> Progress {
    let mut progress = live.progress.subscribe();
    let until = Instant::now() + HOME_ANSWERS;
    loop {
        let now = progress.borrow_and_update().clone();
        let more = now
            .record
            .as_ref()
            .is_some_and(|record| record.segments.len() > asked.from as usize || !goes_on(record, asked));
        if more || now.end.is_some() || timeout_at(until, progress.changed()).await.is_err() {
            return now;
        }
    }
}

/// Whether the asker knows the beginning of this object, and not of another one.
fn goes_on(record: &Record, asked: &ObjectRequest) -> bool {
    match (asked.from as usize).checked_sub(1) {
        None => true,
        Some(last) => {
            record.segments.get(last).map(|segment| segment.blob) == BlobId::from_slice(&asked.last)
        }
    }
}

fn news(progress: &Progress, asked: &ObjectRequest, live: &Live) -> (News, Vec<Segment>) {
    let mut record = progress.record.as_deref().cloned();
    let mut from = 0;
    if let Some(record) = record.as_mut().filter(|record| goes_on(record, asked)) {
        from = asked.from as usize;
        record.segments.drain(..from.min(record.segments.len()));
    }
    let end = progress.end.as_ref().map(|end| match end {
        Ok(()) => End::Done,
        Err(ObjectError::Upstream(UpstreamError::Status { status, .. })) => End::Status(*status),
        Err(ObjectError::Upstream(UpstreamError::Wrong { why, .. })) => End::Wrong(why.clone()),
        Err(ObjectError::Upstream(error)) => End::Unreachable(error.to_string()),
        Err(error) => End::Failed(error.to_string()),
    });
    let segments = record.as_ref().map(|record| record.segments.clone()).unwrap_or_default();
    let under_way = live.home.load(std::sync::atomic::Ordering::Relaxed);
    (News { record, from, came: progress.came, end, under_way }, segments)
}

fn encode(news: &News, content: &[u8]) -> Vec<u8> {
    let json = serde_json::to_vec(news).unwrap_or_default();
    [&(json.len() as u32).to_be_bytes()[..], &json, content].concat()
}
