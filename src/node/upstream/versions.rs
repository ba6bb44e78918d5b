//! Which objects this node knows that may be versions of one thing: found by their names, and by all
//! their bytes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::core::id::BlobId;
use crate::core::upstream::record::Record;
use crate::core::upstream::{ObjectKey, alike};

/// What is shorter, in bytes, is not worth a recipe.
pub(in crate::node) const SHORTEST: u64 = 128 << 10;
/// So many of a family are remembered: the last ones.
const MOST: usize = 2000;

/// An object, and where it was found.
type Found = (ObjectKey, String);

#[derive(Debug, Default)]
struct Known {
    families: HashMap<String, Vec<Found>>,
    contents: HashMap<BlobId, ObjectKey>,
}

/// Complete objects that may be archives.
#[derive(Debug, Default)]
pub(super) struct Versions(Mutex<Known>);

impl Versions {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether another object may come as a patch to this one.
    pub(super) fn is_worth(path: &str, record: &Record) -> bool {
        record.complete && record.came() >= SHORTEST && alike::may_be_opened(path)
    }

    pub(super) fn note(&self, key: ObjectKey, label: &str, path: &str, record: &Record) {
        if !Self::is_worth(path, record) {
            return;
        }
        let mut known = self.known();
        known.contents.insert(record.content(), key);
        let family = known.families.entry(family(label, path)).or_default();
        family.retain(|(other, _)| *other != key);
        if family.len() >= MOST {
            family.remove(0);
        }
        family.push((key, alike::place(path).to_owned()));
    }

    /// The likeliest first.
    pub(super) fn like(&self, label: &str, path: &str) -> Vec<ObjectKey> {
        let known = self.known();
        let found = known.families.get(&family(label, path)).map_or(&[][..], Vec::as_slice);
        let liked = found.iter().rev().map(|(key, other)| (alike::likeness(path, other), *key));
        let mut liked: Vec<_> = liked.filter(|(likeness, _)| *likeness > 0).collect();
        // Stable: of those that are as like, the last one is first.
        liked.sort_by_key(|(likeness, _)| std::cmp::Reverse(*likeness));
        liked.into_iter().map(|(_, key)| key).collect()
    }

    /// The object with these bytes.
    pub(super) fn of_content(&self, content: &BlobId) -> Option<ObjectKey> {
        self.known().contents.get(content).copied()
    }
}

fn family(label: &str, path: &str) -> String {
    format!("{label}\n{}", alike::family(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::id::ManifestId;
    use crate::core::upstream::record::Segment;

    #[test]
    fn the_last_of_a_name_is_first() {
        let versions = Versions::default();
        let record = |name: &[u8]| {
            let segment = Segment { blob: BlobId::of(name), manifest: ManifestId::of(name), size: SHORTEST };
            let (segments, size) = (vec![segment], Some(SHORTEST));
            Record { segments, size, complete: true, ..Record::default() }
        };
        let note = |path: &str| {
            let key = ObjectKey::of_place("a", path, "");
            versions.note(key, "a@upstream", path, &record(path.as_bytes()));
            key
        };
        let (one, two) = (note("pool/tool_1.0_amd64.deb"), note("pool/tool_1.1_amd64.deb"));
        note("pool/tool-data_1.1_all.deb");
        note("pool/tool_1.1.txt");
        assert_eq!(versions.like("a@upstream", "pool/tool_1.2_amd64.deb"), [two, one]);
        assert!(versions.like("b@upstream", "pool/tool_1.2_amd64.deb").is_empty());
        let content = record(b"pool/tool_1.0_amd64.deb").content();
        assert_eq!(versions.of_content(&content), Some(one));
    }
}
