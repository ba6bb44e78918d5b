//! `branchline publish`.

use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::Output;
use crate::core::bitrate::Size;
use crate::core::id::{Channel, PackageName, Version};
use crate::origin::keys::Keys;
use crate::origin::{Address, Origin, publish};

#[derive(Debug, Args)]
pub(super) struct Publish {
    /// The payload
    file: PathBuf,
    /// The package, such as firefox
    #[arg(long)]
    name: PackageName,
    /// The version, such as 128.3.0; its content never changes
    #[arg(long)]
    version: Version,
    /// A channel to point at it, such as stable
    #[arg(long)]
    channel: Option<Channel>,
    /// The origin's folder, or s3://BUCKET/PREFIX
    #[arg(long, env = "BRANCHLINE_ORIGIN")]
    origin: Address,
    /// The origin's signing keys
    #[arg(long, env = "BRANCHLINE_KEYS")]
    keys: PathBuf,
    #[command(flatten)]
    output: Output,
}

impl Publish {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let (origin, keys) = (Origin::open(&self.origin)?, Keys::open(&self.keys)?);
        let size = std::fs::metadata(&self.file).map(|meta| meta.len()).unwrap_or_default();
        let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec}")?;
        // Hidden where standard error is no terminal.
        let bar = ProgressBar::new(size).with_style(style);
        let request = publish::Request {
            file: self.file,
            name: self.name.clone(),
            version: self.version.clone(),
            channel: self.channel,
            by: super::client::giver(),
        };
        let counter = bar.clone();
        let receipt = publish::publish(&origin, &keys, &request, move |bytes| counter.inc(bytes)).await;
        bar.finish_and_clear();
        let receipt = receipt?;
        if self.output.json {
            return super::print_json(&receipt);
        }
        super::print(&format!(
            "published {}@{}: {} in {} chunks, {} of them new; uploaded {}\n  sha256 {}",
            self.name,
            self.version,
            Size(receipt.size),
            receipt.chunks,
            receipt.new_chunks,
            Size(receipt.uploaded),
            receipt.sha256,
        ))
    }
}
