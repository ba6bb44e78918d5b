//! Data streams: a request, a header, then so many raw bytes as the header says.
//!
//! A stream is used again for the next request, so a chunk costs no negotiation. Every wait is
//! bounded by progress, not in total.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use libp2p::Stream;
use libp2p::swarm::ConnectionId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

use super::frame;
use super::pulse::Slack;
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
/// Idle streams kept for each connection.
const KEEP: usize = 4;

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

/// A data stream, and its place among those that may be open.
#[derive(Debug)]
pub(super) struct Line {
    io: Compat<Stream>,
    connection: ConnectionId,
    _permit: OwnedSemaphorePermit,
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

/// Answers the requests of one stream, one after the other, until it ends.
pub(super) async fn serve(
    stream: Stream,
    permit: OwnedSemaphorePermit,
    connection: ConnectionId,
    from: NodeId,
    server: Arc<dyn Serve>,
) {
    let mut line = Line { io: stream.compat(), connection, _permit: permit };
    loop {
        let request = match frame::read::<Request, _>(&mut line.io, MAX_REQUEST).await {
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

/// Idle streams by connection.
#[derive(Debug)]
pub(super) struct Pool {
    slack: Arc<Slack>,
    idle: Mutex<HashMap<ConnectionId, Vec<Line>>>,
}

impl Pool {
    pub(super) fn new(slack: Arc<Slack>) -> Self {
        Self { idle: Mutex::default(), slack }
    }

    /// For how long an answer may bring nothing.
    fn silence(&self) -> Duration {
        SILENCE + self.slack.get()
    }

    fn take(&self, connection: ConnectionId) -> Option<Line> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&connection)?.pop()
    }

    fn give_back(&self, line: Line) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = idle.entry(line.connection).or_default();
        if lines.len() < KEEP {
            lines.push(line);
        }
    }

    /// The connection is gone.
    pub(super) fn forget(&self, connection: ConnectionId) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).remove(&connection);
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

/// Asks a member.
pub(super) async fn ask(
    opener: &Opener,
    pool: &Arc<Pool>,
    request: &Request,
    patience: Duration,
) -> Result<Answer, AskError> {
    if let Some(line) = pool.take(opener.connection) {
        // The other end may have closed it meanwhile; then a new one is opened. Who is silent on one
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
    let line = Line { io: stream.compat(), connection: opener.connection, _permit: permit };
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
