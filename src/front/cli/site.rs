//! `branchline site`.

use std::path::PathBuf;

use clap::Subcommand;

use crate::net::SiteKey;

#[derive(Debug, Subcommand)]
pub(super) enum SiteCommand {
    /// Make a new site key, mode 0600; never overwrites
    Keygen {
        /// Where to write it; copy it to every machine of the site
        file: PathBuf,
    },
}

impl SiteCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let Self::Keygen { file } = self;
        SiteKey::generate(&file)?;
        super::print(&format!(
            "wrote {}; copy it to every machine of the site, and to nobody else",
            file.display()
        ))
    }
}
