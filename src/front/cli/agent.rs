//! `branchline agent`: the daemon.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::config::{self, LogFormat, Resolved, Written};
use crate::front::http;
use crate::node::{Node, Role};

/// Requests that are under way when the agent is told to stop have so long to end.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Agent {
    /// A TOML file with the same keys as the flags, '_' for '-'
    #[arg(long, env = "BRANCHLINE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    written: Written,
}

impl Agent {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let file = self.config.as_deref().map(config::read).transpose()?.unwrap_or_default();
        let written = self.written.over(file);
        log(written.log_format);
        let resolved = written.resolve()?;
        stand_back(resolved.nice);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(std::thread::available_parallelism().map_or(2, usize::from).min(4))
            .max_blocking_threads(16)
            .thread_keep_alive(Duration::from_secs(5))
            .enable_all()
            .build()?;
        let result = runtime.block_on(serve(resolved));
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    }
}

/// `RUST_LOG` decides what is logged; by default, what an admin wants to know.
fn log(format: Option<LogFormat>) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        Some(LogFormat::Json) => builder.json().init(),
        _ => builder.init(),
    }
}

/// Lets other programs have the processor first. Threads inherit that, so it is set before there
/// are any. Who started this process may have made it nicer already: that stays.
fn stand_back(nice: i32) {
    let set = || match rustix::process::getpriority_process(None)? {
        now if now >= nice => Ok(()),
        _ => rustix::process::setpriority_process(None, nice),
    };
    if let Err(error) = set() {
        tracing::warn!(nice, %error, "the system does not let this process stand back; it runs on as it is");
    }
}

async fn serve(resolved: Resolved) -> anyhow::Result<()> {
    let state_dir = resolved.node.state_dir.clone();
    let site = resolved.node.site.clone();
    look_over(&resolved);
    // The gateway's port first: whoever has it taken is told before anything is changed.
    let gateway = http::bind(resolved.gateway, "--gateway").await?;
    let node = Node::start(resolved.node).await?;
    let gateway = gateway.reading_ahead(http::hint(node.clone()));
    let admin = http::bind_socket(&state_dir.join("admin.sock"))?;
    let stop = CancellationToken::new();
    let open = http::router(node.clone(), stop.clone());
    let servers = [(gateway, open), (admin, http::admin_router(node.clone(), stop.clone()))]
        .map(|(listener, router)| tokio::spawn(http::serve(listener, router, stop.clone())));
    tracing::info!(node = %node.me(), %site, gateway = %resolved.gateway, "the agent runs");
    tell_systemd("READY=1");
    stop_signal().await;
    tracing::info!("stopping");
    tell_systemd("STOPPING=1");
    stop.cancel();
    let end = async {
        for server in servers {
            server.await.ok();
        }
    };
    tokio::time::timeout(GRACE, end).await.ok();
    node.stop().await;
    std::fs::remove_file(state_dir.join("admin.sock")).ok();
    Ok(())
}

/// Warns of what is allowed and seldom meant.
fn look_over(resolved: &Resolved) {
    let (node, gateway) = (&resolved.node, resolved.gateway);
    if node.role == Role::Hub && gateway.ip().is_loopback() {
        tracing::warn!(%gateway, "a hub whose gateway only this machine reaches: set gateway = \"0.0.0.0:7420\" for the sites");
    }
    for upstream in node.upstreams.iter().filter(|it| it.credentials.is_some() && !gateway.ip().is_loopback())
    {
        let upstream = &upstream.name;
        tracing::warn!(upstream, %gateway, "whoever reaches the gateway gets what this upstream's credentials are good for");
    }
}

/// Tells systemd how things stand, if it has started us with `Type=notify`.
fn tell_systemd(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let send = || -> anyhow::Result<()> {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::{SocketAddr, UnixDatagram};
        let text = path.to_str().context("no text")?;
        let address = match text.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(text)?,
        };
        UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
        Ok(())
    };
    if let Err(error) = send() {
        tracing::warn!(%error, "systemd could not be told");
    }
}

/// Waits to be told to stop.
pub(super) async fn stop_signal() {
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
    }
}
