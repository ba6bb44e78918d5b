//! What to throw away, and when.
//!
//! Whole blobs, least recently used first, never a pinned one, never one in use. Eviction starts
//! before the disk is full, so that a transfer does not find out. A blob may belong to a group (the
//! versions of one package) that has a quota of its own: what is too much in a group goes from that
//! group, whatever room there is beside.

use std::collections::{BTreeMap, HashSet};

use super::id::BlobId;
use super::quota::Quotas;

/// A blob as eviction sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub blob: BlobId,
    /// What removing it frees, in bytes.
    pub bytes: u64,
    /// When it was last used, in milliseconds since the epoch.
    pub last_used: u64,
    /// Pinned, being read, or being filled.
    pub kept: bool,
    /// What its quota is shared with.
    pub group: Option<String>,
}

/// What the cache may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// The most bytes that blobs may take.
    pub quota: u64,
    /// Bytes that the file system has left.
    pub disk_free: u64,
    /// Bytes to leave free there.
    pub reserve: u64,
}

/// What is about to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// Its size, in bytes.
    pub bytes: u64,
    /// Its group, and the most bytes that this may take.
    pub group: Option<(&'a str, u64)>,
}

/// What there is no room in, not even if all that may go went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The cache.
    Cache,
    /// The disk.
    Disk,
    /// The group.
    Group,
}

/// What may go, oldest first, and what is to go of it.
struct Going {
    may: Vec<Candidate>,
    gone: Vec<Candidate>,
}

impl Going {
    fn of(held: &[Candidate]) -> Self {
        let mut may: Vec<Candidate> = held.iter().filter(|it| !it.kept).cloned().collect();
        may.sort_by_key(|it| (it.last_used, it.blob));
        Self { may, gone: Vec::new() }
    }

    /// Lets so many bytes go of those that are meant; what is left to free if they are too few.
    fn free(&mut self, mut bytes: u64, of: impl Fn(&Candidate) -> bool) -> u64 {
        let mut stay = Vec::new();
        for it in std::mem::take(&mut self.may) {
            if bytes > 0 && of(&it) {
                bytes = bytes.saturating_sub(it.bytes);
                self.gone.push(it);
            } else {
                stay.push(it);
            }
        }
        self.may = stay;
        bytes
    }

    fn freed(&self) -> u64 {
        sum(&self.gone)
    }
}

fn sum<'a>(blobs: impl IntoIterator<Item = &'a Candidate>) -> u64 {
    blobs.into_iter().fold(0, |sum, it| sum.saturating_add(it.bytes))
}

fn in_group<'a>(group: &'a str) -> impl Fn(&&Candidate) -> bool + use<'a> {
    move |it| it.group.as_deref() == Some(group)
}

/// The blobs to remove so that what comes fits.
///
/// # Errors
/// [`Full`] if not even removing all that may go would do.
pub fn plan(held: &[Candidate], room: Room, incoming: Incoming<'_>) -> Result<Vec<BlobId>, Full> {
    let mut going = Going::of(held);
    if let Some((group, quota)) = incoming.group {
        let takes = sum(held.iter().filter(in_group(group))).saturating_add(incoming.bytes);
        if going.free(takes.saturating_sub(quota), |it| in_group(group)(&it)) > 0 {
            return Err(Full::Group);
        }
    }
    let over_quota = sum(held).saturating_add(incoming.bytes).saturating_sub(room.quota);
    let over_disk = incoming.bytes.saturating_add(room.reserve).saturating_sub(room.disk_free);
    let to_free = over_quota.max(over_disk).saturating_sub(going.freed());
    match going.free(to_free, |_| true) {
        0 => Ok(going.gone.into_iter().map(|it| it.blob).collect()),
        _ if over_disk > over_quota => Err(Full::Disk),
        _ => Err(Full::Cache),
    }
}

/// What goes since a quota was lowered, and what is too much and may not go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trim {
    /// To be removed.
    pub blobs: Vec<BlobId>,
    /// Groups that stay above their quota, and by how many bytes.
    pub over: BTreeMap<String, u64>,
    /// Bytes by which the whole stays above the cache's quota.
    pub cache_over: u64,
}

/// Brings all that is held down to the quotas, as far as may be.
pub fn trim(held: &[Candidate], quotas: &Quotas, quota: u64) -> Trim {
    let mut going = Going::of(held);
    let groups: HashSet<&str> = held.iter().filter_map(|it| it.group.as_deref()).collect();
    let mut over = BTreeMap::new();
    for group in groups {
        let Some(most) = quotas.of(group) else { continue };
        let too_much = sum(held.iter().filter(in_group(group))).saturating_sub(most);
        let left = going.free(too_much, |it| in_group(group)(&it));
        if left > 0 {
            over.insert(group.to_owned(), left);
        }
    }
    let too_much = sum(held).saturating_sub(quota).saturating_sub(going.freed());
    let cache_over = going.free(too_much, |_| true);
    let mut blobs: Vec<BlobId> = going.gone.into_iter().map(|it| it.blob).collect();
    blobs.sort_unstable();
    Trim { blobs, over, cache_over }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::bitrate::Size;

    fn blob(n: u8, bytes: u64, last_used: u64, kept: bool) -> Candidate {
        Candidate { blob: BlobId::of(&[n]), bytes, last_used, kept, group: None }
    }

    fn alone(bytes: u64) -> Incoming<'static> {
        Incoming { bytes, group: None }
    }

    #[test]
    fn oldest_first_and_never_a_kept_one() {
        let held = vec![blob(1, 40, 9, false), blob(2, 40, 1, true), blob(3, 20, 3, false)];
        let room = Room { quota: 100, disk_free: 1000, reserve: 10 };
        let plan = |incoming, room| plan(&held, room, alone(incoming));
        assert_eq!(plan(0, room), Ok(vec![]));
        assert_eq!(plan(15, room), Ok(vec![BlobId::of(&[3])]));
        assert_eq!(plan(30, room), Ok(vec![BlobId::of(&[3]), BlobId::of(&[1])]));
        assert_eq!(plan(61, room), Err(Full::Cache));
        let full = Room { disk_free: 12, ..room };
        assert_eq!(plan(0, full), Ok(vec![]));
        assert_eq!(plan(5, Room { quota: 1000, ..full }), Ok(vec![BlobId::of(&[3])]));
        assert_eq!(plan(100, Room { quota: 1000, ..full }), Err(Full::Disk));
    }

    fn group(n: u8, bytes: u64, last_used: u64, kept: bool, name: &str) -> Candidate {
        Candidate { group: Some(name.to_owned()), ..blob(n, bytes, last_used, kept) }
    }

    #[test]
    fn a_group_makes_room_for_its_own() {
        let held = vec![group(1, 40, 1, false, "b"), group(2, 40, 2, true, "a"), group(3, 40, 3, false, "a")];
        let room = Room { quota: 1000, disk_free: 1000, reserve: 0 };
        let plan = |bytes, quota, room| plan(&held, room, Incoming { bytes, group: Some(("a", quota)) });
        assert_eq!(plan(30, 100, room), Ok(vec![BlobId::of(&[3])]), "not the older one of another package");
        assert_eq!(plan(20, 200, room), Ok(vec![]));
        assert_eq!(plan(61, 100, room), Err(Full::Group), "the pinned version stays");
        // What the group gives up counts for the cache, too.
        let small = Room { quota: 120, ..room };
        assert_eq!(plan(40, 80, small), Ok(vec![BlobId::of(&[3])]));
    }

    #[test]
    fn lowered_quotas_trim_what_may_go_and_tell_the_rest() {
        let held = vec![group(1, 40, 1, true, "a"), group(2, 40, 2, false, "a"), group(3, 40, 3, false, "b")];
        let quotas = |texts: &[&str]| {
            let written: Vec<_> = texts.iter().map(|text| text.parse().expect("valid")).collect();
            Quotas::new(&written, Size(1000)).expect("valid")
        };
        assert_eq!(trim(&held, &Quotas::NONE, 1000), Trim::default());
        let trimmed = trim(&held, &quotas(&["a=30"]), 1000);
        assert_eq!(trimmed.blobs, [BlobId::of(&[2])]);
        assert_eq!(trimmed.over, BTreeMap::from([("a".to_owned(), 10)]));
        let trimmed = trim(&held, &quotas(&["*=40"]), 30);
        assert_eq!((trimmed.blobs.len(), trimmed.cache_over), (2, 10));
    }

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let one = (0u64..50, 0u64..9, any::<bool>(), prop::option::of("[ab]"));
        prop::collection::vec(one, 0..12).prop_map(|all| {
            let one =
                |(n, (bytes, last_used, kept, group))| Candidate { group, ..blob(n, bytes, last_used, kept) };
            (0u8..).zip(all).map(one).collect()
        })
    }

    proptest! {
        /// Whatever is planned makes the room that was asked for, takes nothing that is kept, and stops
        /// when it is enough; what is refused could not have been had.
        #[test]
        fn a_plan_makes_room(
            held in candidates(), quota in 0u64..300, disk_free in 0u64..300, reserve in 0u64..30,
            bytes in 0u64..80, limit in 0u64..120, grouped in any::<bool>(),
        ) {
            let room = Room { quota, disk_free, reserve };
            let group = grouped.then_some(("a", limit));
            let fits = |gone: &[BlobId]| {
                let stays: Vec<&Candidate> = held.iter().filter(|it| !gone.contains(&it.blob)).collect();
                let freed = sum(&held) - sum(stays.iter().copied());
                let in_a = sum(stays.iter().copied().filter(in_group("a")));
                sum(stays.iter().copied()) + bytes <= quota
                    && bytes + reserve <= disk_free + freed
                    && (!grouped || in_a + bytes <= limit)
            };
            let kept: Vec<BlobId> = held.iter().filter(|it| it.kept).map(|it| it.blob).collect();
            let all: Vec<BlobId> = held.iter().filter(|it| !it.kept).map(|it| it.blob).collect();
            match plan(&held, room, Incoming { bytes, group }) {
                Ok(gone) => {
                    prop_assert!(fits(&gone), "{:?}", gone);
                    prop_assert!(gone.iter().all(|blob| !kept.contains(blob)));
                    if let Some((_, fewer)) = gone.split_last() {
                        prop_assert!(!fits(fewer), "one too many");
                    }
                }
                Err(_) => prop_assert!(!fits(&all)),
            }
        }
    }
}
