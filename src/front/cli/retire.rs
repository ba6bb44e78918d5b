//! `branchline retire`.

use clap::Args;

use super::catalog::CatalogOf;
use crate::core::id::{PackageName, Version};
use crate::origin::channels::Changed;

#[derive(Debug, Args)]
pub(super) struct Retire {
    /// The package
    name: PackageName,
    /// The version; no channel may point at it
    version: Version,
    /// Take it back from retirement
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    catalog: CatalogOf,
}

impl Retire {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let Self { name, version, undo, catalog } = self;
        let words = if undo { restored } else { retired };
        catalog.change(async |admin| admin.retire(&name, &version, undo).await, words).await
    }
}

fn retired(changed: &Changed) -> String {
    let what = "is retired: new fetches are refused; machines that hold it, and downloads under way, go on";
    format!("{}@{} {what}", changed.name, changed.version)
}

fn restored(changed: &Changed) -> String {
    format!("{}@{} is not retired and can be fetched", changed.name, changed.version)
}
