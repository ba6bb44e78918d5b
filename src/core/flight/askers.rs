//! Who asked of late for a blob that has no flight here, so that they hear when more of it comes to this node by
//! another way: from a bundle.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::core::id::{BlobId, ManifestId, NodeId};

/// Blobs that are remembered, and for how long after the last one asked.
const MOST: usize = 64;
const KEPT: Duration = Duration::from_secs(120);
/// They are told this often, at most; of a blob that is complete, at once.
const OFTEN: Duration = Duration::from_millis(200);

#[derive(Debug)]
struct Asked {
    manifest: ManifestId,
    who: BTreeSet<NodeId>,
    last: Instant,
    told: Option<Instant>,
}

/// The askers, by blob.
#[derive(Debug, Default)]
pub(super) struct Askers {
    blobs: BTreeMap<BlobId, Asked>,
}

impl Askers {
    /// A node asks.
    pub(super) fn note(&mut self, now: Instant, blob: BlobId, manifest: ManifestId, from: NodeId) {
        self.blobs.retain(|_, asked| now.saturating_duration_since(asked.last) < KEPT);
        if self.blobs.len() >= MOST && !self.blobs.contains_key(&blob) {
            let oldest = self.blobs.iter().min_by_key(|(_, asked)| asked.last).map(|(blob, _)| *blob);
            oldest.and_then(|oldest| self.blobs.remove(&oldest));
        }
        let new = Asked { manifest, who: BTreeSet::new(), last: now, told: None };
        let asked = self.blobs.entry(blob).or_insert(new);
        if asked.manifest == manifest {
            asked.who.insert(from);
            asked.last = now;
        }
    }

    /// A node has left.
    pub(super) fn forget(&mut self, node: &NodeId) {
        self.blobs.values_mut().for_each(|asked| _ = asked.who.remove(node));
        self.blobs.retain(|_, asked| !asked.who.is_empty());
    }

    /// Whether somebody has asked for it.
    pub(super) fn has(&self, blob: &BlobId) -> bool {
        self.blobs.contains_key(blob)
    }

    /// Whom to tell now that more of it is here; each is told for the last time of a complete one.
    pub(super) fn due(
        &mut self,
        now: Instant,
        blob: &BlobId,
        complete: bool,
    ) -> Option<(ManifestId, Vec<NodeId>)> {
        let asked = self.blobs.get_mut(blob)?;
        if now.saturating_duration_since(asked.last) >= KEPT {
            self.blobs.remove(blob);
            return None;
        }
        if !complete && asked.told.is_some_and(|told| now.saturating_duration_since(told) < OFTEN) {
            return None;
        }
        asked.told = Some(now);
        let whom = (asked.manifest, asked.who.iter().copied().collect());
        if complete {
            self.blobs.remove(blob);
        }
        Some(whom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn askers_are_told_now_and_then_and_when_it_is_complete() {
        let (start, blob, manifest) = (Instant::now(), BlobId::of(b"b"), ManifestId::of(b"m"));
        let (one, two) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
        let mut askers = Askers::default();
        assert_eq!(askers.due(start, &blob, false), None);
        askers.note(start, blob, manifest, one);
        askers.note(start, blob, manifest, two);
        askers.note(start, blob, ManifestId::of(b"laid out in another way"), NodeId::from_bytes([3; 32]));
        assert_eq!(askers.due(start, &blob, false), Some((manifest, vec![one, two])));
        assert_eq!(askers.due(start + OFTEN / 2, &blob, false), None);
        askers.forget(&one);
        assert_eq!(askers.due(start + OFTEN, &blob, false), Some((manifest, vec![two])));
        assert_eq!(askers.due(start + OFTEN, &blob, true), Some((manifest, vec![two])));
        assert!(!askers.has(&blob));
    }

    #[test]
    fn few_are_remembered_and_not_for_long() {
        let start = Instant::now();
        let mut askers = Askers::default();
        let ids: Vec<BlobId> = (0..200u32).map(|n| BlobId::of(&n.to_le_bytes())).collect();
        for (n, id) in (0u32..).zip(&ids) {
            askers.note(start + OFTEN * n / 100, *id, ManifestId::of(b"m"), NodeId::from_bytes([1; 32]));
        }
        assert_eq!(ids.iter().filter(|id| askers.has(id)).count(), MOST);
        assert!(askers.has(&ids[199]) && askers.due(start + KEPT * 2, &ids[199], false).is_none());
    }
}
