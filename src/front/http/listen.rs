//! Where the gateway listens: a TCP address, and a socket for the machine's admins.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use axum::Router;
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_util::sync::CancellationToken;

use super::ahead::{Ahead, Hint};
use crate::front::passing::{Passed, Receiving};

/// A place to listen at, bound.
pub enum Listener {
    /// An address, and what is done with requests that are only seen yet.
    Tcp(TcpListener, Option<Hint>),
    /// A socket in the file system.
    Socket(UnixListener),
}

impl Listener {
    /// The same, which sets out for what clients ask for next.
    pub fn reading_ahead(self, hint: Hint) -> Self {
        match self {
            Self::Tcp(listener, _) => Self::Tcp(listener, Some(hint)),
            Self::Socket(_) => self,
        }
    }
}

/// An address whose connections are read ahead.
struct Tcp {
    listener: TcpListener,
    hint: Option<Hint>,
}

impl axum::serve::Listener for Tcp {
    type Io = Ahead<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
        stream.set_nodelay(true).ok();
        (Ahead::new(stream, self.hint.clone()), address)
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A socket over which files may be handed over.
struct Socket(UnixListener);

impl axum::serve::Listener for Socket {
    type Io = Receiving;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = axum::serve::Listener::accept(&mut self.0).await;
        (Receiving::new(stream), address)
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, Socket>> for Passed {
    fn connect_info(stream: IncomingStream<'_, Socket>) -> Self {
        stream.io().passed()
    }
}

/// Binds an address.
///
/// # Errors
/// In words: most often, another agent is running there.
pub async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<Listener> {
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; is another agent running? Choose another address with {flag}")
    })?;
    Ok(Listener::Tcp(listener, None))
}

/// Binds a socket that only its owner and group may use. One that a dead agent left is replaced.
///
/// # Errors
/// In words.
pub fn bind_socket(path: &Path) -> anyhow::Result<Listener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!("another agent answers at {}; stop it, or give this one another --state-dir", path.display());
    }
    std::fs::remove_file(path).ok();
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen at {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).context("the admin socket")?;
    Ok(Listener::Socket(listener))
}

/// Serves until told to stop; open requests may end first.
///
/// # Errors
/// If the listener fails.
pub async fn serve(listener: Listener, router: Router, stop: CancellationToken) -> std::io::Result<()> {
    let stopped = async move { stop.cancelled().await };
    match listener {
        Listener::Tcp(listener, hint) => {
            axum::serve(Tcp { listener, hint }, router).with_graceful_shutdown(stopped).await
        }
        Listener::Socket(listener) => {
            let service = router.into_make_service_with_connect_info::<Passed>();
            axum::serve(Socket(listener), service).with_graceful_shutdown(stopped).await
        }
    }
}
