//! `branchline pin` and `unpin`: packages that stay.

use clap::Args;

use super::client::{Admin, giver};
use super::{Output, outcomes};
use crate::core::orders::Selector;
use crate::front::http::OfPackage;

#[derive(Debug, Args)]
pub(super) struct Pin {
    /// NAME@VERSION, NAME@CHANNEL (whatever the channel points at), or NAME
    package: Selector,
    /// On every machine of the site, also on those that come later
    #[arg(long)]
    site: bool,
    #[command(flatten)]
    admin: Admin,
    #[command(flatten)]
    output: Output,
}

impl Pin {
    pub(super) async fn run(self, pin: bool) -> anyhow::Result<()> {
        let path = if pin { "/api/v1/admin/pin" } else { "/api/v1/admin/unpin" };
        let said = match pin {
            true => format!("every machine has {} and keeps it", self.package),
            false => format!("{} may be evicted again, unless something else keeps it", self.package),
        };
        let site = self.site;
        let order = OfPackage { package: self.package, site: self.site, by: giver() };
        let outcomes = self.admin.order(path, &order).await?;
        if site {
            return outcomes::finish_order(&outcomes, self.output.json, &said);
        }
        outcomes::finish(&outcomes, self.output.json)
    }
}
