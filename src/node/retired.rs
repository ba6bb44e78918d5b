//! What a client gets of a retired version: what is in use goes on, and nothing begins anew.
//!
//! A version in use is never broken by a change of the catalog. Readers, flights and their followers go
//! by blob and manifest and never look at the catalog again; this is about requests that come later.
//! They are served where the version is held, in part or whole, where a client shows by its `ETag` that
//! it has a part already, and where the site brings it in at this moment.

use super::catalog::{ResolveError, Resolved};
use super::neighbours::IN_FLIGHT;
use super::{Node, blocking};
use crate::core::id::BlobId;

impl Node {
    /// What a client means by a name. `has_part` tells, by the blob, whether it has a part already.
    ///
    /// # Errors
    /// [`ResolveError`]; [`ResolveError::Retired`] for a retired version that is not in use.
    pub async fn resolve(
        &self,
        name: &str,
        wanted: Option<&str>,
        has_part: impl Fn(&BlobId) -> bool,
    ) -> Result<Resolved, ResolveError> {
        let resolved = self.catalog().resolve(name, wanted).await?;
        let blob = resolved.published.blob;
        match resolved.published.retired {
            Some(at) if !has_part(&blob) && !self.is_in_use(&blob).await => {
                Err(ResolveError::Retired { label: resolved.label(), at })
            }
            _ => Ok(resolved),
        }
    }

    /// It is held here, or on its way into the site.
    async fn is_in_use(&self, blob: &BlobId) -> bool {
        if self.is_in_flight(blob) {
            return true;
        }
        let (store, id) = (self.inner.store.clone(), *blob);
        if blocking(move || store.get(&id).is_some()).await == Some(true) {
            return true;
        }
        self.ask_hubs(&format!("{IN_FLIGHT}{blob}")).await.into_iter().any(|flies: bool| flies)
    }

    /// This node takes part in a flight of it.
    pub(super) fn is_in_flight(&self, blob: &BlobId) -> bool {
        let views = self.inner.views.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        views.iter().any(|view| view.blob == *blob)
    }
}
