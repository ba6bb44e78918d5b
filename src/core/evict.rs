//! What to throw away, and when.
//!
//! Whole blobs, least recently used first, never a pinned one, never one in use. Eviction starts
//! before the disk is full, so that a transfer does not find out.

use super::id::BlobId;

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

/// The blobs to remove so that `incoming` more bytes fit, oldest first; `None` if not even
/// removing all that may go would do.
pub fn plan(mut held: Vec<Candidate>, room: Room, incoming: u64) -> Option<Vec<BlobId>> {
    let used: u64 = held.iter().map(|blob| blob.bytes).sum();
    let over_quota = (used + incoming).saturating_sub(room.quota);
    let over_disk = (incoming + room.reserve).saturating_sub(room.disk_free);
    let mut to_free = over_quota.max(over_disk);
    held.retain(|blob| !blob.kept);
    held.sort_by_key(|blob| (blob.last_used, blob.blob));
    let mut victims = Vec::new();
    for blob in held {
        if to_free == 0 {
            break;
        }
        to_free = to_free.saturating_sub(blob.bytes);
        victims.push(blob.blob);
    }
    (to_free == 0).then_some(victims)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(n: u8, bytes: u64, last_used: u64, kept: bool) -> Candidate {
        Candidate { blob: BlobId::of(&[n]), bytes, last_used, kept }
    }

    #[test]
    fn oldest_first_and_never_a_kept_one() {
        let held = vec![blob(1, 40, 9, false), blob(2, 40, 1, true), blob(3, 20, 3, false)];
        let room = Room { quota: 100, disk_free: 1000, reserve: 10 };
        let plan = |incoming, room| plan(held.clone(), room, incoming);
        assert_eq!(plan(0, room), Some(vec![]));
        assert_eq!(plan(15, room), Some(vec![BlobId::of(&[3])]));
        assert_eq!(plan(30, room), Some(vec![BlobId::of(&[3]), BlobId::of(&[1])]));
        assert_eq!(plan(61, room), None);
        let full = Room { disk_free: 12, ..room };
        assert_eq!(plan(0, full), Some(vec![]));
        assert_eq!(plan(5, Room { quota: 1000, ..full }), Some(vec![BlobId::of(&[3])]));
    }
}
