//! Data lines: a request, a header, then so many raw bytes as the header says.
//!
//! A line is a stream of the multiplexed connection, or a bulk connection ([`super::bulk`]) where
//! there is much to bring. It is used again for the next request, so a chunk costs no negotiation.
//! Every wait is bounded by progress, not in total.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use libp2p::Stream;
use libp2p::swarm::ConnectionId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::compat::FuturesAsyncReadCompatExt;

use super::bulk::{Arrived, Wire};
use super::frame;
use super::pool::{Pool, REST};
use super::streams::{DATA, Opener};
use crate::core::id::NodeId;
use crate::core::wire::message::{Request, Response};

/// The longest request, in bytes.
const MAX_REQUEST: usize = 1 << 20;
/// The longest header, in bytes.
const MAX_RESPONSE: usize = 4 << 10;
/// Without a byte for so long, an answer is given up.
pub const SILENCE: Duration = Duration::from_secs(3);
/// A client that reads nothing for so long is let go.
const STUCK: Duration = Duration::from_secs(10);
/// A bulk connection on which nothing is asked for so long is closed: later than its other end would.
const UNUSED: Duration = REST.saturating_mul(2);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The member is not connected.
    #[error("the node is not connected")]
    Gone,
    /// It sent nothing for a while.
    #[error("the node is silent")]
    Silent,
    /// The line broke, or what came makes no sense.
    #[error("the line to the node broke: {0}")]
    Broken(#[from] io::Error),
}

/// Answers requests of members.
pub trait Serve: Send + Sync {
    /// Answers one request.
    fn serve<'a>(&'a self, from: NodeId, request: Request, reply: Reply<'a>)
    -> BoxFuture<'a, io::Result<()>>;
}

/// Bytes both ways.
trait Io: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug> Io for T {}

/// What carries a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A stream of the multiplexed connection.
    Stream,
    /// A connection of its own.
    Bulk,
}

/// A way to ask and be answered, and its places among those that may be open.
#[derive(Debug)]
pub(super) struct Line {
    io: Box<dyn Io>,
    pub(super) kind: Kind,
    /// The connection to the member that it leads to.
    pub(super) home: ConnectionId,
    _places: Vec<OwnedSemaphorePermit>,
}

impl Line {
    pub(super) fn stream(stream: Stream, home: ConnectionId, place: OwnedSemaphorePermit) -> Self {
        Self { io: Box::new(stream.compat()), kind: Kind::Stream, home, _places: vec![place] }
    }

    pub(super) fn bulk(wire: Wire, home: ConnectionId, places: Vec<OwnedSemaphorePermit>) -> Self {
        Self { io: Box::new(wire), kind: Kind::Bulk, home, _places: places }
    }

    /// One that a member made.
    pub(super) fn arrived(arrived: Arrived, home: ConnectionId, place: OwnedSemaphorePermit) -> Self {
        Self::bulk(arrived.wire, home, vec![arrived.place, place])
    }

    /// The next request; `None` if there is none.
    async fn request(&mut self) -> io::Result<Option<Request>> {
        let request = frame::read::<Request, _>(&mut self.io, MAX_REQUEST);
        match self.kind {
            Kind::Stream => request.await,
            Kind::Bulk => tokio::time::timeout(UNUSED, request).await.unwrap_or(Ok(None)),
        }
    }
}

/// The way back to whoever asked.
#[derive(Debug)]
pub struct Reply<'a> {
    line: &'a mut Line,
}

impl Reply<'_> {
    /// Writes the header; `length` raw bytes must follow.
    ///
    /// # Errors
    /// If the other end is gone or reads nothing.
    pub async fn header(&mut self, response: &Response) -> io::Result<()> {
        let bytes = frame::encode(response);
        self.bytes(&bytes).await
    }

    /// Writes raw bytes.
    ///
    /// # Errors
    /// As [`Reply::header`].
    pub async fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        within(STUCK, self.line.io.write_all(bytes)).await
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

/// Answers the requests of one line, one after the other, until it ends.
pub(super) async fn serve(mut line: Line, from: NodeId, server: Arc<dyn Serve>) {
    loop {
        let request = match line.request().await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%from, %error, "a request could not be read");
                return;
            }
        };
        if let Err(error) = server.serve(from, request, Reply { line: &mut line }).await {
            tracing::debug!(%from, %error, "an answer broke off");
            return;
        }
        if within(STUCK, line.io.flush()).await.is_err() {
            return;
        }
    }
}

/// An answer whose bytes are on their way.
#[derive(Debug)]
pub struct Answer {
    /// The header.
    pub response: Response,
    left: u64,
    line: Line,
    pool: Arc<Pool>,
}

impl Answer {
    /// Raw bytes that are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The next bytes: exactly as many as the buffer takes.
    ///
    /// # Errors
    /// [`AskError`]; also if fewer bytes are left.
    pub async fn read(&mut self, buffer: &mut [u8]) -> Result<(), AskError> {
        if buffer.len() as u64 > self.left {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let mut filled = 0;
        while filled < buffer.len() {
            let read = tokio::time::timeout(self.pool.silence(), self.line.io.read(&mut buffer[filled..]));
            match read.await.map_err(|_| AskError::Silent)?? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                some => filled += some,
            }
        }
        self.left -= filled as u64;
        Ok(())
    }

    /// All bytes that are left, if they are at most so many.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn read_all(mut self, most: u64) -> Result<Vec<u8>, AskError> {
        if self.left > most {
            let why = format!("an answer of {} bytes, where {most} is the most", self.left);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why).into());
        }
        let mut bytes = vec![0; self.left as usize];
        self.read(&mut bytes).await?;
        self.done();
        Ok(bytes)
    }

    /// Gives the stream back for the next request, if all bytes were read.
    pub fn done(self) {
        if self.left == 0 {
            self.pool.give_back(self.line);
        }
    }
}

/// Asks a member, on a bulk connection if it is for much and there is one idle.
pub(super) async fn ask(
    opener: &Opener,
    pool: &Arc<Pool>,
    request: &Request,
    much: bool,
    patience: Duration,
) -> Result<Answer, AskError> {
    if let Some(line) = pool.take(opener.connection, much) {
        // The other end may have closed it meanwhile; then a stream is opened. Who is silent on one
        // would be on another: it has been asked, and may be at it.
        match ask_on(line, pool, request, patience).await {
            Err(AskError::Broken(_)) => {}
            answer => return answer,
        }
    }
    let open = tokio::time::timeout(pool.silence(), opener.open(DATA));
    let (stream, permit) = open
        .await
        .map_err(|_| AskError::Silent)?
        .map_err(|error| AskError::Broken(io::Error::other(error)))?;
    let line = Line::stream(stream, opener.connection, permit);
    ask_on(line, pool, request, patience).await
}

async fn ask_on(
    mut line: Line,
    pool: &Arc<Pool>,
    request: &Request,
    patience: Duration,
) -> Result<Answer, AskError> {
    let exchange = async {
        frame::write(&mut line.io, request).await?;
        line.io.flush().await?;
        let response = frame::read::<Response, _>(&mut line.io, MAX_RESPONSE).await?;
        response.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
    };
    let response = tokio::time::timeout(patience, exchange).await.map_err(|_| AskError::Silent)??;
    Ok(Answer { left: response.length, response, line, pool: pool.clone() })
}
