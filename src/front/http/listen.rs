//! Where the gateway listens: a TCP address, and a socket for the machine's admins.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use axum::Router;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

/// A place to listen at, bound.
#[derive(Debug)]
pub enum Listener {
    /// An address.
    Tcp(TcpListener),
    /// A socket in the file system.
    Socket(UnixListener),
}

/// Binds an address.
///
/// # Errors
/// In words: most often, another agent is running there.
pub async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<Listener> {
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; is another agent running? Choose another address with {flag}")
    })?;
    Ok(Listener::Tcp(listener))
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
        Listener::Tcp(listener) => {
            use axum::serve::ListenerExt;
            let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
            axum::serve(listener, router).with_graceful_shutdown(stopped).await
        }
        Listener::Socket(listener) => axum::serve(listener, router).with_graceful_shutdown(stopped).await,
    }
}
