//! The catalog of a bundle: whose it is, and whether it is newer than what is known.

use std::sync::Arc;

use bytes::Bytes;

use super::import::ImportError;
use super::report::CatalogNews;
use crate::core::bundle::Contents;
use crate::node::Node;
use crate::node::errands::Errand;
use crate::origin::{Catalog, Fetch};

/// Enough of a hash for people to compare.
fn short(hash: &[u8; 32]) -> String {
    hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

impl Node {
    /// Verifies a bundle's catalog, and takes it over if it is newer than the one that is held, which is
    /// never given up for an older one. What packages are allowed is up to the one that is returned.
    ///
    /// # Errors
    /// [`ImportError`], before anything was written.
    pub(super) async fn take_catalog(
        &self,
        contents: &Contents,
        files: Vec<(String, Bytes)>,
    ) -> Result<(Arc<Catalog>, CatalogNews), ImportError> {
        let keeper = self.inner.catalog.keeper();
        let fetch = Fetch::from_peer(files);
        let fetch = fetch.ok_or_else(|| ImportError::Refused("its catalog has too many files".into()))?;
        let examined = keeper.examine(fetch.clone()).await;
        let theirs = examined.map_err(|error| self.another_origin(contents, &error.to_string()))?;
        let news =
            |version, taken_over, note| CatalogNews { version, in_bundle: theirs.version, taken_over, note };
        let held = keeper.current();
        if let Some(held) = held.clone().filter(|held| held.version >= theirs.version) {
            let note = (held.version > theirs.version).then(|| {
                format!(
                    "the bundle's catalog is older (version {}) than the one here ({}), which stays",
                    theirs.version, held.version
                )
            });
            let news = news(held.version, false, note);
            return Ok((held, news));
        }
        match (self.inner.catalog.take(fetch).await, held) {
            (Ok(catalog), _) => {
                // The others may have none, and no other way to one.
                let errand = Errand::Catalog { version: catalog.version, at: self.me() };
                let node = self.clone();
                tokio::spawn(async move { node.run_everywhere(errand).await });
                let news = news(catalog.version, true, None);
                Ok((catalog, news))
            }
            (Err(_), Some(held)) if theirs.is_expired() => {
                let note = format!(
                    "the bundle's catalog has expired on {} and was not taken over; packages that the one here (version {}) lists were",
                    theirs.expires, held.version
                );
                let news = news(held.version, false, Some(note));
                Ok((held, news))
            }
            (Err(_), None) if theirs.is_expired() => Err(ImportError::Expired(theirs.expires)),
            (Err(error), _) => Err(ImportError::Refused(error.to_string())),
        }
    }

    fn another_origin(&self, contents: &Contents, why: &str) -> ImportError {
        let named =
            |(address, root): (String, [u8; 32])| format!("{address} (root of trust {})", short(&root));
        ImportError::Foreign {
            why: why.to_owned(),
            theirs: named((contents.origin.clone(), contents.root)),
            ours: self.inner.config.provenance().map_or_else(|| "none".to_owned(), named),
        }
    }
}
