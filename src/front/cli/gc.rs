//! `branchline gc`: frees what nothing needs.

use clap::Args;

use super::client::{Admin, giver};
use super::{Output, outcomes};
use crate::core::bitrate::Size;
use crate::core::lapse::Lapse;
use crate::front::http::GcOrder;
use crate::node;

#[derive(Debug, Args)]
pub(super) struct Gc {
    /// On every machine of the site
    #[arg(long)]
    site: bool,
    /// Free so much in all, if need be of what was used least recently
    #[arg(long, value_name = "SIZE")]
    free: Option<Size>,
    /// Let go also what was not used for so long, such as 30d
    #[arg(long, value_name = "SPAN")]
    unused: Option<Lapse>,
    /// Say what would go, and let it be
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    admin: Admin,
    #[command(flatten)]
    output: Output,
}

impl Gc {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let gc = node::Gc { free: self.free, unused: self.unused, dry_run: self.dry_run };
        let order = GcOrder { gc, site: self.site, by: giver() };
        let outcomes = self.admin.order("/api/v1/admin/gc", &order).await?;
        outcomes::finish(&outcomes, self.output.json)
    }
}
