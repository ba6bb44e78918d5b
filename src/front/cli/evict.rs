//! `branchline evict`: throws a package away.

use clap::Args;

use super::client::{Admin, giver};
use super::{Output, outcomes};
use crate::core::orders::Selector;
use crate::front::http::OfPackage;

#[derive(Debug, Args)]
pub(super) struct Evict {
    /// NAME@VERSION or NAME@CHANNEL
    package: Selector,
    /// On every machine of the site
    #[arg(long)]
    site: bool,
    #[command(flatten)]
    admin: Admin,
    #[command(flatten)]
    output: Output,
}

impl Evict {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let order = OfPackage { package: self.package, site: self.site, by: giver() };
        let outcomes = self.admin.order("/api/v1/admin/evict", &order).await?;
        outcomes::finish(&outcomes, self.output.json)
    }
}
