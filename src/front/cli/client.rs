//! Talking to a running agent: over its gateway, or over its admin socket.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::config::default_gateway;

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
        let hint = "is the agent running? Start it with 'branchline agent', or name another with --gateway";
        match (&self.gateway, &self.state_dir) {
            (None, Some(dir)) => {
                let socket = dir.join("admin.sock");
                let stream = UnixStream::connect(&socket).await;
                exchange(
                    stream.with_context(|| format!("no agent answers at {}; {hint}", socket.display()))?,
                    path,
                    headers,
                )
                .await
            }
            (gateway, _) => {
                let address = gateway.unwrap_or_else(default_gateway);
                let stream = TcpStream::connect(address).await;
                exchange(
                    stream.with_context(|| format!("no agent answers at {address}; {hint}"))?,
                    path,
                    headers,
                )
                .await
            }
        }
    }

    /// Reads facts.
    ///
    /// # Errors
    /// If no agent answers, or with what it says.
    pub async fn json<T: serde::de::DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let response = self.get(path, &[]).await?;
        if response.status() != StatusCode::OK {
            bail!("{}", refusal(response).await);
        }
        let body = Limited::new(response.into_body(), MAX_JSON).collect().await;
        let bytes =
            body.map_err(|error| anyhow::anyhow!("the agent's answer broke off: {error}"))?.to_bytes();
        serde_json::from_slice(&bytes).context("the agent speaks another version of the API")
    }
}

async fn exchange<S>(
    stream: S,
    path: &str,
    headers: &[(header::HeaderName, String)],
) -> anyhow::Result<Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::get(path).header(header::HOST, "branchline");
    // By this the ledger knows the front.
    request = request.header(header::USER_AGENT, concat!("branchline-get/", env!("CARGO_PKG_VERSION")));
    for (name, value) in headers {
        request = request.header(name, value);
    }
    Ok(sender.send_request(request.body(Empty::<Bytes>::new())?).await?)
}

/// What the agent says of a request that it does not fulfil.
pub(super) async fn refusal(response: Response<Incoming>) -> String {
    let status = response.status();
    let body = Limited::new(response.into_body(), 64 << 10).collect().await;
    let text =
        body.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned()).unwrap_or_default();
    if text.is_empty() { format!("the agent answers {status}") } else { text }
}
