//! `branchline origin`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Subcommand;
use tokio_util::sync::CancellationToken;

use crate::core::bitrate::{Rate, Size};
use crate::front::http::{self, tree};
use crate::origin::keys::{self, Keys};
use crate::origin::{Address, Origin, publish, recipes};

#[derive(Debug, Subcommand)]
pub(super) enum OriginCommand {
    /// Make a new origin: signing keys, and catalog/root.json, which agents are given once
    Init {
        /// The tree to publish; serve it with any web server
        #[arg(long)]
        root: PathBuf,
        /// Where to put the signing keys: apart from the tree, and kept safe
        #[arg(long)]
        keys: PathBuf,
    },
    /// Serve a tree, for those who have no web server at hand
    Serve {
        /// The tree
        #[arg(long)]
        root: PathBuf,
        /// Where to listen
        #[arg(long, default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
        /// Send at most this much, all clients together, such as 20mbit
        #[arg(long)]
        limit: Option<Rate>,
    },
    /// Sign the catalog anew, so that it is good for longer
    Renew {
        /// The folder or the bucket
        #[arg(long)]
        origin: Address,
        /// The signing keys
        #[arg(long)]
        keys: PathBuf,
    },
    /// Remove recipes that no supported upgrade needs: those for retired versions and against them
    Gc {
        /// The folder or the bucket
        #[arg(long, env = "BRANCHLINE_ORIGIN")]
        origin: Address,
        /// The signing keys
        #[arg(long, env = "BRANCHLINE_KEYS")]
        keys: PathBuf,
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        output: super::Output,
    },
}

impl OriginCommand {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Init { root, keys } => {
                keys::init(&root, &keys).await?;
                super::print(&format!(
                    "made an origin in {}\n  keys, to be kept safe:        {}\n  root of trust, for all agents: {}\n\
                     next: branchline publish FILE --name NAME --version VERSION --origin {} --keys {}",
                    root.display(),
                    keys.display(),
                    root.join("catalog").join("root.json").display(),
                    root.display(),
                    keys.display(),
                ))
            }
            Self::Serve { root, listen, limit } => {
                anyhow::ensure!(
                    root.join("catalog").join("root.json").is_file(),
                    "there is no origin in {}; make one with 'branchline origin init'",
                    root.display()
                );
                let listener = http::bind(listen, "--listen").await?;
                super::print(&format!("serving {} at http://{listen}", root.display()))?;
                let stop = CancellationToken::new();
                let stopping = stop.clone();
                tokio::spawn(async move {
                    super::agent::stop_signal().await;
                    stopping.cancel();
                });
                // Downloads that are under way do not keep it from stopping.
                tokio::select! {
                    result = http::serve(listener, tree::router(root, limit), CancellationToken::new()) => Ok(result?),
                    () = stop.cancelled() => Ok(()),
                }
            }
            Self::Renew { origin, keys } => {
                let version = publish::renew(&Origin::open(&origin)?, &Keys::open(&keys)?).await?;
                super::print(&format!("signed the catalog anew, as version {version}"))
            }
            Self::Gc { origin, keys, dry_run, output } => {
                let swept = recipes::sweep(&Origin::open(&origin)?, &Keys::open(&keys)?, dry_run).await?;
                if output.json {
                    return super::print_json(&swept);
                }
                let removed = if dry_run { "would remove" } else { "removed" };
                super::print(&format!(
                    "{removed} {} objects, {}; {} versions have fewer recipes; {} objects stay",
                    swept.objects,
                    Size(swept.bytes),
                    swept.versions,
                    swept.kept,
                ))
            }
        }
    }
}
