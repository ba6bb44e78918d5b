//! Bytes that come over the WAN for a flight: as fast as they may, and the coordinator hears of them.

use std::ops::Range;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;

use super::Node;
use super::passage::Passage;
use super::wan::WanFlight;
use crate::core::flight::Input;
use crate::core::id::BlobId;
use crate::core::ledger::WanReason;
use crate::origin::OriginError;

/// The coordinator hears of bytes this often, at most.
pub(super) const OFTEN: Duration = Duration::from_millis(200);

/// What the coordinator hears of what is under way.
pub(super) struct News<'a> {
    node: &'a Node,
    blob: BlobId,
    told: Instant,
    bytes: u64,
    held_back: bool,
}

impl<'a> News<'a> {
    pub(super) fn new(node: &'a Node, blob: BlobId) -> Self {
        Self { node, blob, told: Instant::now(), bytes: 0, held_back: false }
    }

    async fn came(&mut self, bytes: u64, gives_way: bool) {
        self.bytes += bytes;
        self.tell(gives_way).await;
    }

    /// It waits, and not for the WAN: that is no lack of progress.
    pub(super) async fn held_back(&mut self) {
        self.tell(true).await;
    }

    /// Waits for something else than the WAN, and says so.
    pub(super) async fn while_held_back<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        if let Poll::Ready(done) = futures::poll!(&mut work) {
            return done;
        }
        loop {
            self.held_back().await;
            if let Ok(done) = tokio::time::timeout(OFTEN, &mut work).await {
                return done;
            }
        }
    }

    /// Waits for what comes from the origin. To what gives way it comes late, when the link is full and
    /// packets are lost.
    async fn meanwhile<T>(&mut self, passage: &Passage, coming: impl Future<Output = T>) -> T {
        let mut coming = std::pin::pin!(coming);
        loop {
            match tokio::time::timeout(OFTEN, &mut coming).await {
                Ok(came) => return came,
                Err(_) if passage.gives_way() => self.held_back().await,
                Err(_) => {}
            }
        }
    }

    async fn tell(&mut self, held_back: bool) {
        self.held_back |= held_back;
        if self.told.elapsed() < OFTEN {
            return;
        }
        self.told = Instant::now();
        let (bytes, held_back) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.held_back));
        let input = Input::WanBytes { blob: self.blob, bytes, held_back };
        self.node.inner.inputs.send(input).await.ok();
    }
}

/// Waits until the WAN is open for what is pulled, so many bytes, and what was asked for before is paid: no
/// connection is made before.
pub(super) async fn opened(node: &Node, wan: &WanFlight, news: &mut News<'_>, length: u64) -> Passage {
    let mut pulling = node.inner.allowance.begin(wan.urgency());
    while pulling.throttle().is_shut().await {
        news.held_back().await;
        pulling.is_for(wan.urgency());
    }
    let mut passage = wan.passage(pulling);
    let mut owed = passage.expects(Some(length));
    while passage.holds_back(owed).await {
        news.held_back().await;
        if passage.is_for(wan.urgency()) {
            owed = passage.expects(Some(length));
        }
    }
    passage
}

/// A part of one of the origin's objects, on its way.
pub(super) struct Flow<'a> {
    wan: &'a WanFlight,
    pub(super) news: News<'a>,
    passage: Passage,
    stream: BoxStream<'static, Result<Bytes, OriginError>>,
    buffer: BytesMut,
}

impl<'a> Flow<'a> {
    /// Asks for it, when the WAN is open.
    ///
    /// # Errors
    /// As [`Origin::stream`](crate::origin::Origin::stream).
    pub(super) async fn open(
        node: &'a Node,
        wan: &'a WanFlight,
        mut news: News<'a>,
        (path, range): (&str, Range<u64>),
        reason: WanReason,
    ) -> Result<Self, OriginError> {
        let passage = opened(node, wan, &mut news, range.end.saturating_sub(range.start)).await;
        wan.is_for(reason);
        let stream = news.meanwhile(&passage, wan.origin.stream(path, range)).await?;
        Ok(Self { wan, news, passage, stream, buffer: BytesMut::new() })
    }

    /// The next so many bytes. What has come and was not taken stays if it fails.
    ///
    /// # Errors
    /// As [`Flow::open`]; and if there are fewer.
    pub(super) async fn take(&mut self, length: usize) -> Result<Bytes, OriginError> {
        while self.buffer.len() < length {
            let piece = match self.news.meanwhile(&self.passage, self.stream.next()).await {
                Some(piece) => piece?,
                None => return Err(OriginError::Failed("an object ended early".into())),
            };
            self.news.came(piece.len() as u64, self.passage.gives_way()).await;
            self.buffer.extend_from_slice(&piece);
            self.pay(piece.len() as u64).await;
        }
        Ok(self.buffer.split_to(length).freeze())
    }

    /// Waits as long as the limit says.
    async fn pay(&mut self, bytes: u64) {
        let (wan, passage) = (self.wan, &mut self.passage);
        passage.is_for(wan.urgency());
        let mut owed = passage.pay(bytes);
        while passage.holds_back(owed).await {
            self.news.held_back().await;
            if passage.is_for(wan.urgency()) {
                owed = passage.pay(0); // what was waited for is another kind's
            }
        }
    }
}
