//! `branchline promote`.

use clap::Args;

use super::catalog::{CatalogOf, moved};
use crate::core::id::{Channel, PackageName, Version};

#[derive(Debug, Args)]
pub(super) struct Promote {
    /// The channel, such as stable; it is made if it is not there
    channel: Channel,
    /// The package
    name: PackageName,
    /// Where to point it: any version, later or earlier
    version: Version,
    #[command(flatten)]
    catalog: CatalogOf,
}

impl Promote {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let Self { channel, name, version, catalog } = self;
        catalog.change(async |admin| admin.promote(&channel, &name, &version).await, moved).await
    }
}
