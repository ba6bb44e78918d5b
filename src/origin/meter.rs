//! Counting WAN bytes where they are read: at the socket, below TLS and HTTP, so that headers,
//! encryption and compression are in; and keeping what the system reads ahead small.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The receive buffer of a connection that has no limit any more, in bytes.
const UNBOUNDED: usize = 4 << 20;

/// Bytes read from WAN connections, ever growing.
#[derive(Debug, Default)]
pub struct Meter {
    read: AtomicU64,
    window: AtomicUsize,
}

impl Meter {
    /// Bytes read so far.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Has the system read no more than so many bytes ahead on each connection, from now on: what
    /// is held back here would else cross the WAN all the same, and sooner than it may. 0: as much
    /// as it likes.
    pub fn keep_window(&self, bytes: usize) {
        self.window.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn count(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A stream whose reads are counted.
#[derive(Debug)]
pub(super) struct Metered<S> {
    inner: S,
    meter: Arc<Meter>,
    /// As it was last set.
    window: usize,
}

impl<S> Metered<S> {
    pub(super) fn new(inner: S, meter: Arc<Meter>) -> Self {
        Self { inner, meter, window: 0 }
    }
}

impl<S: AsFd> Metered<S> {
    fn keep_window(&mut self) {
        let window = self.meter.window.load(Ordering::Relaxed);
        if window == self.window {
            return;
        }
        // What it read ahead once cannot be unset, but may be made large again.
        let size = if window == 0 { UNBOUNDED } else { window };
        if let Err(error) = rustix::net::sockopt::set_socket_recv_buffer_size(&self.inner, size) {
            tracing::debug!(%error, "the receive buffer of a WAN connection cannot be set");
        }
        self.window = window;
    }
}

impl<S: AsyncRead + AsFd + Unpin> AsyncRead for Metered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.keep_window();
        let before = buf.filled().len();
        let result = Pin::new(&mut this.inner).poll_read(cx, buf);
        this.meter.count((buf.filled().len() - before) as u64);
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

impl<S: Connection> Connection for Metered<S> {
    fn connected(&self) -> Connected {
        self.inner.connected()
    }
}
