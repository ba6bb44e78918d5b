//! What all commands share that change a catalog: where it is, its keys, and who it is that changes it.

use std::path::PathBuf;

use clap::Args;

use super::client::giver;
use super::{Output, print, print_json};
use crate::origin::channels::{Admin, Changed};
use crate::origin::keys::Keys;
use crate::origin::{Address, Origin};

#[derive(Debug, Args)]
pub(super) struct CatalogOf {
    /// The origin's folder, or s3://BUCKET/PREFIX
    #[arg(long, env = "BRANCHLINE_ORIGIN", value_name = "URL_OR_DIR")]
    origin: Address,
    /// The origin's signing keys
    #[arg(long, env = "BRANCHLINE_KEYS", value_name = "DIR")]
    keys: PathBuf,
    #[command(flatten)]
    output: Output,
}

impl CatalogOf {
    /// Changes the catalog and says what that came to, in the caller's words.
    pub(super) async fn change(
        &self,
        change: impl AsyncFnOnce(&Admin<'_>) -> Result<Changed, crate::origin::OriginError>,
        words: impl FnOnce(&Changed) -> String,
    ) -> anyhow::Result<()> {
        let (origin, keys, by) = (Origin::open(&self.origin)?, Keys::open(&self.keys)?, giver());
        let changed = change(&Admin { origin: &origin, keys: &keys, by: &by }).await?;
        if self.output.json {
            return print_json(&changed);
        }
        print(&format!("{} (catalog version {})", words(&changed), changed.catalog))
    }
}

/// Where a channel points now, and where it did.
pub(super) fn moved(changed: &Changed) -> String {
    let Changed { name, version, from, unchanged, .. } = changed;
    let channel = changed.channel.as_ref().map(ToString::to_string).unwrap_or_default();
    match from {
        _ if *unchanged => format!("{channel} of {name} points at {version} already"),
        Some(from) => format!("{channel} of {name}: {from} -> {version}"),
        None => format!("{channel} of {name}: new, points at {version}"),
    }
}
