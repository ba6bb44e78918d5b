//! Counting what a WAN connection carries: at the socket, below TLS and HTTP, so that headers,
//! encryption and compression are in; and keeping what the system reads ahead small.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::tcp_info::{TcpInfo, tcp_info};
use crate::core::ledger::Wire;

/// The receive buffer of a connection that has no limit any more, in bytes.
const UNBOUNDED: usize = 4 << 20;
/// Bytes are told of after so many, and whenever no more are there to be read: a process that is
/// killed takes no more than this with it.
const OFTEN: u64 = 64 << 10;
/// Headers of IP, in bytes.
const IPV4: u64 = 20;
const IPV6: u64 = 40;

/// Who is told what connections carry, as they carry it. Must not wait.
pub type Sink = Arc<dyn Fn(Wire) + Send + Sync>;

/// The meter of some connections.
pub struct Meter {
    window: AtomicUsize,
    sink: Sink,
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter").field("window", &self.window).finish_non_exhaustive()
    }
}

impl Meter {
    /// A meter that tells this sink.
    pub(super) fn new(sink: Sink) -> Self {
        Self { window: AtomicUsize::new(0), sink }
    }

    /// Has the system read no more than so many bytes ahead on each connection, from now on: what
    /// is held back here would else cross the WAN all the same, and sooner than it may. 0: as much
    /// as it likes.
    pub fn keep_window(&self, bytes: usize) {
        self.window.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn carried(&self, wire: Wire) {
        if wire != Wire::default() {
            (self.sink)(wire);
        }
    }
}

/// A connection that is metered.
#[derive(Debug)]
pub(super) struct Metered {
    inner: TcpStream,
    meter: Arc<Meter>,
    /// As it was last set.
    window: usize,
    /// Payload that was read.
    read: u64,
    /// Of it, what the sink was told.
    told: u64,
    /// What the system had counted when the sink was told.
    before: TcpInfo,
    ip_header: u64,
}

impl Metered {
    pub(super) fn new(inner: TcpStream, meter: Arc<Meter>) -> Self {
        let ipv6 = inner.peer_addr().is_ok_and(|peer| peer.is_ipv6());
        let ip_header = if ipv6 { IPV6 } else { IPV4 };
        Self { inner, meter, window: 0, read: 0, told: 0, before: TcpInfo::default(), ip_header }
    }

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

    /// Tells the sink what has come since the last time. At the `end`, what the system received and
    /// nobody will read any more has come too.
    fn tell(&mut self, end: bool) {
        let now = tcp_info(&self.inner).unwrap_or(self.before);
        let came = if end { self.read.max(now.received) } else { self.read };
        let header = now.header + self.ip_header;
        self.meter.carried(Wire {
            read: came - self.told,
            headers: (now.packets_in - self.before.packets_in) * header,
            sent: now.sent - self.before.sent + (now.packets_out - self.before.packets_out) * header,
        });
        (self.told, self.before) = (came, now);
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.tell(true);
    }
}

impl AsyncRead for Metered {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.keep_window();
        let before = buf.filled().len();
        let result = Pin::new(&mut this.inner).poll_read(cx, buf);
        this.read += (buf.filled().len() - before) as u64;
        let untold = this.read - this.told;
        if untold >= OFTEN || (untold > 0 && result.is_pending()) {
            this.tell(false);
        }
        result
    }
}

impl AsyncWrite for Metered {
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

impl Connection for Metered {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}
