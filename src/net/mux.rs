//! yamux with larger frames than libp2p's own wrapper lets one set: 16 KiB frames cost half as much
//! again for every byte (see the README's measurements).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::io::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use yamux::{Config, Connection, ConnectionError, Mode};

/// Bytes of one frame.
const FRAME: usize = 256 << 10;
/// Streams of one connection; see `streams` for the bounds that keep well below it, since yamux
/// ends the whole connection at this one.
const MAX_STREAMS: usize = 64;
/// Bytes that one connection may have waiting to be read.
const WINDOW: usize = 32 << 20;
/// New streams taken up before others get their turn.
const PER_POLL: usize = 16;
/// A peer that does not read is not waited for longer when a connection is closed.
const CLOSE: Duration = Duration::from_secs(3);

/// The multiplexer's settings.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Yamux;

fn config() -> Config {
    let mut config = Config::default();
    // In this order: every step checks the window against the streams.
    config.set_max_num_streams(MAX_STREAMS);
    config.set_max_connection_receive_window(Some(WINDOW));
    config.set_split_send_size(FRAME);
    config
}

/// One multiplexed connection.
pub(super) struct Muxer<C> {
    connection: Connection<C>,
    arrived: VecDeque<yamux::Stream>,
    waiting: Option<Waker>,
    closing: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    fn new(io: C, mode: Mode) -> Self {
        let connection = Connection::new(io, config(), mode);
        Self { connection, arrived: VecDeque::new(), waiting: None, closing: None }
    }

    /// Moves all I/O forward; only this does. Gives at most one new stream.
    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<Result<yamux::Stream, ConnectionError>> {
        self.connection.poll_next_inbound(cx).map(|stream| stream.unwrap_or(Err(ConnectionError::Closed)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = yamux::Stream;
    type Error = ConnectionError;

    fn poll_inbound(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        let this = self.get_mut();
        if let Some(stream) = this.arrived.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        this.waiting = Some(cx.waker().clone());
        this.drive(cx)
    }

    fn poll_outbound(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        self.get_mut().connection.poll_new_outbound(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let this = self.get_mut();
        this.arrived.clear();
        if let Poll::Ready(result) = this.connection.poll_close(cx) {
            return Poll::Ready(result);
        }
        let timer = this.closing.get_or_insert_with(|| Box::pin(tokio::time::sleep(CLOSE)));
        timer.as_mut().poll(cx).map(Ok)
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        let this = self.get_mut();
        for _ in 0..PER_POLL {
            match this.drive(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(stream)) => {
                    // Beyond the bound a stream is dropped, which its opener sees as a reset.
                    if this.arrived.len() < MAX_STREAMS {
                        this.arrived.push_back(stream);
                    }
                    if let Some(waker) = this.waiting.take() {
                        waker.wake();
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl UpgradeInfo for Yamux {
    type Info = &'static str;
    type InfoIter = std::iter::Once<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once("/yamux/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, io: C, _: Self::Info) -> Self::Future {
        ready(Ok(Muxer::new(io, Mode::Server)))
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_outbound(self, io: C, _: Self::Info) -> Self::Future {
        ready(Ok(Muxer::new(io, Mode::Client)))
    }
}
