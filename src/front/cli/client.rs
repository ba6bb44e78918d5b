//! Talking to a running agent: over its gateway, or over its admin socket.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use http::request::Builder;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::config::{default_gateway, default_state_dir};
use crate::front::passing::Sending;

/// What may go wrong with a body.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

const HINT: &str =
    "is the agent running? Start it with 'branchline agent', or name another with --gateway or --state-dir";

/// The longest answer of the API that is read, in bytes.
const MAX_JSON: usize = 256 << 20;

/// Which agent to talk to
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// The agent's gateway [default: 127.0.0.1:7420]
    #[arg(long, env = "BRANCHLINE_GATEWAY", value_name = "ADDR:PORT")]
    gateway: Option<SocketAddr>,
    /// The agent's state directory, to talk over the socket in it
    #[arg(long, env = "BRANCHLINE_STATE_DIR", value_name = "DIR", conflicts_with = "gateway")]
    state_dir: Option<PathBuf>,
}

impl Target {
    /// The agent behind this gateway.
    pub fn gateway(address: SocketAddr) -> Self {
        Self { gateway: Some(address), state_dir: None }
    }

    /// Sends a `GET` and returns the answer, whatever its status.
    ///
    /// # Errors
    /// If no agent answers there.
    pub async fn get(
        &self,
        path: &str,
        headers: &[(header::HeaderName, String)],
    ) -> anyhow::Result<Response<Incoming>> {
        let request = Request::get(path);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        self.send(request, Empty::<Bytes>::new()).await
    }

    async fn send<B>(&self, request: Builder, body: B) -> anyhow::Result<Response<Incoming>>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        match (&self.gateway, &self.state_dir) {
            (None, Some(dir)) => send_to_socket(dir, None, request, body).await,
            (gateway, _) => {
                let address = gateway.unwrap_or_else(default_gateway);
                let stream = TcpStream::connect(address).await;
                let stream = stream.with_context(|| format!("no agent answers at {address}; {HINT}"))?;
                exchange(stream, request, body).await
            }
        }
    }

    /// The agent of this state directory.
    pub(super) fn state_dir(dir: &Path) -> Self {
        Self { gateway: None, state_dir: Some(dir.to_owned()) }
    }

    /// Has the agent do what every user may have done.
    ///
    /// # Errors
    /// If no agent answers, or with what it says.
    pub(super) async fn order<T: DeserializeOwned>(
        &self,
        path: &str,
        order: &impl serde::Serialize,
    ) -> anyhow::Result<T> {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        facts(self.send(request, Full::new(Bytes::from(serde_json::to_vec(order)?))).await?).await
    }

    /// Reads facts.
    ///
    /// # Errors
    /// If no agent answers, or with what it says.
    pub async fn json<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        facts(self.get(path, &[]).await?).await
    }
}

/// The agent's admin socket
#[derive(Debug, Clone, Args)]
pub(super) struct Admin {
    /// The agent's state directory, with its admin socket [default: /var/lib/branchline]
    #[arg(long, env = "BRANCHLINE_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl Admin {
    fn state_dir(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(default_state_dir)
    }

    /// Sends an order, and returns what the agent says to it.
    ///
    /// # Errors
    /// If no agent answers, or with what it says.
    pub(super) async fn order<T: DeserializeOwned>(
        &self,
        path: &str,
        order: &impl serde::Serialize,
    ) -> anyhow::Result<T> {
        let body = Full::new(Bytes::from(serde_json::to_vec(order)?));
        facts(self.post(path, "application/json", body).await?).await
    }

    /// Sends a `GET` and returns the answer, whatever its status.
    ///
    /// # Errors
    /// If no agent answers there.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Response<Incoming>> {
        send_to_socket(&self.state_dir(), None, Request::get(path), Empty::<Bytes>::new()).await
    }

    /// Sends a request without a body, and hands over a file with it: for the agent to read, or to write.
    ///
    /// # Errors
    /// If no agent answers there.
    pub(super) async fn hand_over(&self, request: Builder, file: File) -> anyhow::Result<Response<Incoming>> {
        send_to_socket(&self.state_dir(), Some(file), request, Empty::<Bytes>::new()).await
    }

    /// Reads facts that are for admins alone.
    ///
    /// # Errors
    /// If no agent answers, or with what it says.
    pub(super) async fn facts<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        facts(self.get(path).await?).await
    }

    /// Sends a body, however long, and returns the answer, whatever its status.
    ///
    /// # Errors
    /// If no agent answers there.
    pub(super) async fn post<B>(&self, path: &str, kind: &str, body: B) -> anyhow::Result<Response<Incoming>>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let request = Request::post(path).header(header::CONTENT_TYPE, kind);
        send_to_socket(&self.state_dir(), None, request, body).await
    }
}

/// Who gives an order, for people: `USER@HOST`.
pub(super) fn giver() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    format!("{}@{}", user.as_deref().unwrap_or("somebody"), gethostname::gethostname().to_string_lossy())
}

/// The JSON of an answer.
///
/// # Errors
/// With what the agent says, if that is no success.
pub(super) async fn facts<T: DeserializeOwned>(response: Response<Incoming>) -> anyhow::Result<T> {
    if response.status() != StatusCode::OK {
        bail!("{}", refusal(response).await);
    }
    let body = Limited::new(response.into_body(), MAX_JSON).collect().await;
    let bytes = body.map_err(|error| anyhow::anyhow!("the agent's answer broke off: {error}"))?.to_bytes();
    serde_json::from_slice(&bytes).context("the agent speaks another version of the API")
}

async fn send_to_socket<B>(
    dir: &Path,
    file: Option<File>,
    request: Builder,
    body: B,
) -> anyhow::Result<Response<Incoming>>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let socket = dir.join("admin.sock");
    let stream = UnixStream::connect(&socket).await;
    let stream = stream.with_context(|| match rustix::fs::access(&socket, rustix::fs::Access::EXISTS) {
        Err(rustix::io::Errno::ACCESS) => not_allowed(&socket),
        Ok(()) if rustix::fs::access(&socket, rustix::fs::Access::WRITE_OK).is_err() => not_allowed(&socket),
        _ => format!("no agent answers at {}; {HINT}", socket.display()),
    })?;
    exchange(Sending::new(stream, file), request, body).await
}

fn not_allowed(socket: &Path) -> String {
    let who = "orders are for this machine's admins: use sudo, or join the socket's group";
    format!("you may not use {}; {who}", socket.display())
}

async fn exchange<S, B>(stream: S, request: Builder, body: B) -> anyhow::Result<Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = request.header(header::HOST, "branchline");
    // By this the ledger knows the front.
    let request = request.header(header::USER_AGENT, concat!("branchline-get/", env!("CARGO_PKG_VERSION")));
    Ok(sender.send_request(request.body(Box::pin(body))?).await?)
}

/// What the agent says of a request that it does not fulfil.
pub(super) async fn refusal(response: Response<Incoming>) -> String {
    let status = response.status();
    let body = Limited::new(response.into_body(), 64 << 10).collect().await;
    let text =
        body.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned()).unwrap_or_default();
    if text.is_empty() { format!("the agent answers {status}") } else { text }
}
