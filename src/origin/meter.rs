//! Counting what a WAN connection carries: at the socket, below TLS and HTTP, so that headers,
//! encryption and compression are in; and keeping what the system reads ahead small.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper_util::client::legacy::connect::{Connected, Connection};
use jiff::SignedDuration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::tcp_info::{TcpInfo, tcp_info};
use super::tempo::Tempo;
use super::window::{ReceiveWindow, largest};
use crate::core::ledger::Wire;

/// The receive buffer of a connection that has no limit any more, in bytes.
const UNBOUNDED: usize = 4 << 20;
/// Bytes are told of after so many, and whenever no more are there to be read: a process that is
/// killed takes no more than this with it.
const OFTEN: u64 = 64 << 10;
/// The same where a limit has to be kept: what crosses ahead is to be known soon.
const OFTEN_LIMITED: u64 = 16 << 10;
/// Where a limit has to be kept no read takes more than this part of the window, or so many bytes: what is
/// read makes room for as much to cross at once.
const READS_OF_A_WINDOW: usize = 8;
const LEAST_READ: usize = 4 << 10;
/// A connection is held only to less than the system's largest buffer divided by this: it has to be able to
/// grow again.
const MAY_GROW: usize = 4;
/// Headers of IP, in bytes.
const IPV4: u64 = 20;
const IPV6: u64 = 40;

/// Payload of a full segment, in bytes.
const SEGMENT: u64 = 1448;

/// Whether an answer on a connection has begun, and was not read to its end.
#[derive(Debug, Clone, Default)]
pub(super) struct Busy(Arc<AtomicBool>);

impl Busy {
    pub(super) fn set(&self, busy: bool) {
        self.0.store(busy, Ordering::Relaxed);
    }
}

/// What a connection has carried since the last time it was told of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    /// Which connection, of this process.
    pub connection: u64,
    /// What it carried.
    pub wire: Wire,
    /// Payload that is on its way to it, as its rate and its round trip let one guess: what would
    /// still cross the WAN if this process were killed now. 0 when the connection has ended.
    pub flying: u64,
    /// Bytes that have crossed, headers of TCP and IP included, also those that wait to be read.
    pub crossed: u64,
    /// The connection's round trip; zero if it is not known.
    pub round_trip: Duration,
}

/// Who is told what connections carry, as they carry it. Must not wait.
pub type Sink = Arc<dyn Fn(Carried) + Send + Sync>;

/// The meter of some connections.
pub struct Meter {
    window: AtomicUsize,
    opened: AtomicU64,
    bounded: AtomicUsize,
    sink: Sink,
    over: CancellationToken,
    /// How far this machine's clock is ahead of the server's.
    ahead: Mutex<Option<SignedDuration>>,
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter").field("window", &self.window).finish_non_exhaustive()
    }
}

impl Meter {
    /// A meter that tells this sink.
    pub(super) fn new(sink: Sink) -> Self {
        Self {
            window: AtomicUsize::new(0),
            opened: AtomicU64::new(0),
            bounded: AtomicUsize::new(0),
            sink,
            over: CancellationToken::new(),
            ahead: Mutex::default(),
        }
    }

    /// Has the system read no more than so many bytes ahead on each connection, from now on: what
    /// is held back here would else cross the WAN all the same, and sooner than it may. 0: as much
    /// as it likes.
    pub fn keep_window(&self, bytes: usize) {
        self.window.store(bytes, Ordering::Relaxed);
    }

    /// Ends its connections at once. An HTTP client that nobody reads from notices late, if its
    /// connection is silent, that it should; meanwhile more could cross the WAN.
    pub fn end(&self) {
        self.over.cancel();
    }

    /// How many connections there have been.
    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// How many connections there are that bring no more ahead than they should: a new one does at first.
    pub fn bounded(&self) -> usize {
        self.bounded.load(Ordering::Relaxed)
    }

    /// How far this machine's clock is ahead of the server's, to a second or two, as the last answer had
    /// it; none where answers bear no date.
    pub fn clock_ahead(&self) -> Option<SignedDuration> {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note_clock(&self, ahead: SignedDuration) {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
    }

    pub(super) fn carried(&self, carried: Carried) {
        (self.sink)(carried);
    }
}

static NUMBER: AtomicU64 = AtomicU64::new(1);

/// A connection that is metered.
#[derive(Debug)]
pub(super) struct Metered {
    inner: TcpStream,
    meter: Arc<Meter>,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
    busy: Busy,
    number: u64,
    /// How much may come ahead, as it was last said; 0: as the system likes.
    window: usize,
    receive: ReceiveWindow,
    /// That has been kept once: the meter knows.
    is_bounded: bool,
    /// Payload that was read.
    read: u64,
    /// Of it, what the sink was told.
    told: u64,
    /// Payload that had come when the sink was told, read or not.
    arrived: u64,
    /// What the system had counted when the sink was told.
    before: TcpInfo,
    ip_header: u64,
    tempo: Tempo,
    /// What its sender was last held to where nobody sets a window; 0: to nothing.
    ahead: usize,
}

impl Metered {
    pub(super) fn new(inner: TcpStream, meter: Arc<Meter>) -> Self {
        let ipv6 = inner.peer_addr().is_ok_and(|peer| peer.is_ipv6());
        let ip_header = if ipv6 { IPV6 } else { IPV4 };
        meter.opened.fetch_add(1, Ordering::Relaxed);
        Self {
            inner,
            over: Box::pin(meter.over.clone().cancelled_owned()),
            meter,
            busy: Busy::default(),
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            window: 0,
            receive: ReceiveWindow::default(),
            is_bounded: false,
            read: 0,
            told: 0,
            arrived: 0,
            before: TcpInfo::default(),
            ip_header,
            tempo: Tempo::new(Instant::now()),
            ahead: 0,
        }
    }

    fn keep_window(&mut self) {
        let window = self.meter.window.load(Ordering::Relaxed);
        if window == self.window {
            return;
        }
        // A sender waits long before it sends less than a segment.
        let least = 2 * tcp_info(&self.inner).map_or(0, |info| info.segment as usize);
        let size = if window == 0 { UNBOUNDED } else { window.max(least) };
        if let Err(error) = self.receive.keep(&self.inner, size) {
            tracing::debug!(%error, "the receive window of a WAN connection cannot be set");
        }
        (self.window, self.ahead) = (window, 0);
    }

    /// The window may come down by what was read, to where it should be.
    fn lower_window(&mut self, read: usize) {
        if let Err(error) = self.receive.read(&self.inner, read) {
            tracing::debug!(%error, "the receive window of a WAN connection cannot be made smaller");
        }
        if !self.is_bounded && self.window > 0 && self.receive.is_kept() {
            self.is_bounded = true;
            self.meter.bounded.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reads into the buffer, or into its beginning where a limit has to be kept. Gives how much.
    fn poll_some(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> (usize, Poll<io::Result<()>>) {
        let most = match self.window {
            0 => usize::MAX,
            window => (window / READS_OF_A_WINDOW).max(LEAST_READ),
        };
        if buf.remaining() <= most {
            let before = buf.filled().len();
            let result = Pin::new(&mut self.inner).poll_read(cx, buf);
            return (buf.filled().len() - before, result);
        }
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        let result = Pin::new(&mut self.inner).poll_read(cx, &mut part);
        let read = part.filled().len();
        buf.advance(read);
        (read, result)
    }

    /// Where nobody sets a window, the sender is held to what the connection can use; unless that is so
    /// much that the system would not give it back on a link that becomes faster.
    fn keep_tempo(&mut self, round_trip: Duration) {
        let Some(ahead) = self.tempo.ahead(round_trip).filter(|_| self.window == 0) else { return };
        let may = self.ahead != 0 || ahead <= largest() / MAY_GROW;
        if may && ahead.abs_diff(self.ahead) > self.ahead / 4 {
            if let Err(error) = self.receive.keep(&self.inner, ahead) {
                tracing::debug!(%error, "the receive window of a WAN connection cannot be bounded");
            }
            self.ahead = ahead;
        }
    }

    /// Tells the sink what has come since the last time. At the `end`, what the system received and
    /// nobody will read any more has come too.
    fn tell(&mut self, end: bool) {
        let now = tcp_info(&self.inner).unwrap_or(self.before);
        let came = if end { self.read.max(now.received) } else { self.read };
        let header = now.header + self.ip_header;
        let round_trip = Duration::from_micros(now.round_trip_us);
        if !end {
            self.tempo.read(Instant::now(), self.read);
            self.keep_tempo(round_trip);
        }
        // When the connection has been silent at its end, what came before says how much was on its way.
        let flying = if self.busy.0.load(Ordering::Relaxed) { self.tempo.in_a(round_trip) } else { 0 };
        // What came since, unread, was on its way then.
        let estimated = if end { flying.saturating_sub(came - self.read) } else { 0 };
        let packets_in = u64::from(now.packets_in.wrapping_sub(self.before.packets_in)) + estimated / SEGMENT;
        let packets_out = u64::from(now.packets_out.wrapping_sub(self.before.packets_out));
        let wire = Wire {
            read: came.saturating_sub(self.told) + estimated,
            estimated,
            headers: packets_in * header,
            sent: now.sent.saturating_sub(self.before.sent) + packets_out * header,
        };
        if end {
            let (connection, rate) = (self.number, self.tempo.rate() as u64);
            tracing::debug!(
                connection,
                came,
                estimated,
                rate,
                rtt_us = now.round_trip_us,
                "a WAN connection ends"
            );
        }
        let flying = if end { 0 } else { flying };
        let arrived = came.max(now.received);
        let crossed = arrived.saturating_sub(self.arrived) + estimated + wire.headers;
        let sent_round_trip = Duration::from_micros(now.sent_round_trip_us);
        let connection = self.number;
        self.meter.carried(Carried { connection, wire, flying, crossed, round_trip: sent_round_trip });
        (self.told, self.arrived, self.before) = (came, arrived, now);
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.tell(true);
        if self.is_bounded {
            self.meter.bounded.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl AsyncRead for Metered {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "its flight is over")));
        }
        this.keep_window();
        let (read, result) = this.poll_some(cx, buf);
        this.read += read as u64;
        this.lower_window(read);
        let untold = this.read - this.told;
        let often = if this.window == 0 { OFTEN } else { OFTEN_LIMITED };
        if untold >= often || (untold > 0 && result.is_pending()) {
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
        Connected::new().extra(self.busy.clone())
    }
}
