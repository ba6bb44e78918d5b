//! `branchline rollback`.

use clap::Args;

use super::catalog::{CatalogOf, moved};
use crate::core::id::{Channel, PackageName, Version};
use crate::origin::channels::Changed;

#[derive(Debug, Args)]
pub(super) struct Rollback {
    /// The channel, such as stable
    channel: Channel,
    /// The package
    name: PackageName,
    /// Further back, to this version [default: the one that it pointed at before]
    #[arg(long, value_name = "VERSION")]
    to: Option<Version>,
    #[command(flatten)]
    catalog: CatalogOf,
}

impl Rollback {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let Self { channel, name, to, catalog } = self;
        catalog.change(async |admin| admin.rollback(&channel, &name, to.as_ref()).await, words).await
    }
}

fn words(changed: &Changed) -> String {
    let passed: Vec<String> = changed.passed.iter().map(ToString::to_string).collect();
    let passed = match passed.len() {
        0 => String::new(),
        _ => format!("; passed over {}, which is retired", passed.join(" and ")),
    };
    format!("{}{passed}", moved(changed))
}
