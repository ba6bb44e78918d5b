//! `branchline publish`.

use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::Output;
use crate::core::bitrate::Size;
use crate::core::id::{Channel, PackageName, Version};
use crate::core::lapse::Lapse;
use crate::origin::keys::Keys;
use crate::origin::publish::{self, Progress, Receipt};
use crate::origin::recipes::{Made, Wanted};
use crate::origin::{Address, Origin};

/// Parts that stay as shipped are named up to so many.
const NAMED: usize = 3;

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
    /// An older version that branches hold, beside the last two: an upgrade from it costs what has changed;
    /// may be given often
    #[arg(long, value_name = "VERSION", conflicts_with = "no_recipes")]
    against: Vec<Version>,
    /// Do not look inside: published at once, and each upgrade costs all chunks that have changed
    #[arg(long)]
    no_recipes: bool,
    /// After so long no more recipes are made
    #[arg(long, value_name = "TIME", default_value = "30m", conflicts_with = "no_recipes")]
    recipe_time: Lapse,
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
        let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {msg}")?;
        // Hidden where standard error is no terminal.
        let bar = ProgressBar::new(size).with_style(style);
        let request = publish::Request {
            file: self.file,
            name: self.name.clone(),
            version: self.version.clone(),
            channel: self.channel,
            by: super::client::giver(),
            recipes: Wanted {
                none: self.no_recipes,
                against: self.against,
                within: Some(self.recipe_time.duration()),
            },
        };
        let shown = bar.clone();
        let progress = move |progress| match progress {
            Progress::Read(bytes) => shown.inc(bytes),
            Progress::Doing(what) => shown.set_message(what),
        };
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        let receipt = publish::publish(&origin, &keys, &request, progress).await;
        bar.finish_and_clear();
        let receipt = receipt?;
        if self.output.json {
            return super::print_json(&receipt);
        }
        super::print(&format!("published {}@{}: {}", self.name, self.version, describe(&receipt)))
    }
}

fn describe(receipt: &Receipt) -> String {
    let mut text = format!(
        "{} in {} chunks, {} of them new; uploaded {}\n  sha256 {}",
        Size(receipt.size),
        receipt.chunks,
        receipt.new_chunks,
        Size(receipt.uploaded + receipt.recipes.uploaded),
        receipt.sha256,
    );
    for line in recipes(&receipt.recipes, receipt.size) {
        text += "\n  ";
        text += &line;
    }
    text
}

/// What the recipes are worth, and what they took.
fn recipes(made: &Made, size: u64) -> Vec<String> {
    let mut lines = Vec::new();
    for way in &made.ways {
        let from = way.against.as_ref().map_or("new to a site".to_owned(), |it| format!("upgrade from {it}"));
        let part = 100.0 * way.bytes as f64 / size.max(1) as f64;
        lines.push(format!("{from}: {} over the WAN, {part:.1} % of the file", Size(way.bytes)));
    }
    if made.contents > 0 {
        let (inside, kept) = (Size(made.contents), Size(made.uploaded));
        lines.push(format!(
            "looked into {inside} in {:.1} s; recipes take {kept} at the origin",
            made.seconds
        ));
    }
    if made.left_count > 0 {
        let named = made.left.iter().take(NAMED).map(|left| {
            if left.path.is_empty() { left.why.clone() } else { format!("{} ({})", left.path, left.why) }
        });
        let named = named.collect::<Vec<_>>().join(", ");
        lines.push(format!("as shipped: {} inside, such as {named}", parts(made.left_count)));
    }
    if let Some(problem) = &made.problem {
        lines.push(format!("published, but without all recipes: {problem}"));
    }
    lines
}

fn parts(count: usize) -> String {
    if count == 1 { "1 part".to_owned() } else { format!("{count} parts") }
}
