//! `GET /api/v1/flights`: the flights under way, as this node sees them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::super::Node;
use crate::core::chunkset::ChunkSet;
use crate::core::flight::{FlightView, RoleView};
use crate::core::id::BlobId;
use crate::core::manifest::Manifest;

/// In so many parts a blob's filling is shown.
const PARTS: usize = 100;
/// A rate is of at least so long, and is begun anew when nobody looked for longer than that.
const LOOK: Duration = Duration::from_millis(200);
const STALE: Duration = Duration::from_secs(5);
/// How much of the shown rate is the newest look's.
const NEWEST: f64 = 0.3;

/// One flight, as this node sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Flight {
    /// The package, as `NAME@VERSION`.
    pub package: String,
    /// The blob.
    pub blob: String,
    /// `asking`, `lead`, `joining` or `follower`.
    pub role: String,
    /// The lead's node id.
    pub lead: Option<String>,
    /// Followers that still want chunks, if this node leads.
    pub followers: usize,
    /// Chunks that this node holds.
    pub held: u32,
    /// Chunks in all; 0 while that is not known.
    pub chunks: u32,
    /// Chunks that this node is pulling over the WAN.
    pub pulling: u32,
    /// Bytes in all; 0 while that is not known.
    pub size: u64,
    /// Bytes that this node holds.
    pub bytes: u64,
    /// Bytes per second that come in, smoothed; none until it was looked at twice.
    pub rate: Option<u64>,
    /// How full the blob is, in percent, in 100 equal parts from its beginning to its end (fewer if it
    /// has fewer chunks).
    pub filled: Vec<u8>,
}

/// How fast blobs fill. Reckoned when somebody looks, and only then.
#[derive(Debug, Default)]
pub(in crate::node) struct Speeds {
    looks: Mutex<HashMap<BlobId, Look>>,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    bytes: u64,
    rate: Option<u64>,
}

impl Look {
    fn first(at: Instant, bytes: u64) -> Self {
        Self { at, bytes, rate: None }
    }

    fn again(&mut self, now: Instant, bytes: u64) {
        let since = now.saturating_duration_since(self.at);
        if since > STALE || bytes < self.bytes {
            *self = Self::first(now, bytes);
        } else if since >= LOOK {
            let newest = (bytes - self.bytes) as f64 / since.as_secs_f64();
            let before = self.rate.map_or(newest, |rate| rate as f64);
            *self = Self { at: now, bytes, rate: Some((before + NEWEST * (newest - before)) as u64) };
        }
    }
}

impl Speeds {
    /// The rates of these blobs, by how much of them is held now; all others are forgotten.
    fn look(&self, now: Instant, held: &[(BlobId, u64)]) -> Vec<Option<u64>> {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = HashMap::with_capacity(held.len());
        let rates = held.iter().map(|&(blob, bytes)| {
            let mut look = looks.get(&blob).copied().unwrap_or_else(|| Look::first(now, bytes));
            look.again(now, bytes);
            seen.insert(blob, look);
            look.rate
        });
        let rates = rates.collect();
        *looks = seen;
        rates
    }
}

/// Bytes that are held, and how full each part of the blob is, in percent.
fn filling(manifest: &Manifest, held: &ChunkSet) -> (u64, Vec<u8>) {
    let parts = PARTS.min(manifest.count() as usize) as u64;
    let size = manifest.size().max(1);
    let mut filled = vec![0u64; parts as usize];
    // Where a part begins: chunks may lie across several parts.
    let start = |part: u64| part * size / parts;
    let mut bytes = 0;
    for chunk in held.iter().filter_map(|index| manifest.chunk(index)) {
        let (from, to) = (chunk.offset, chunk.offset + u64::from(chunk.length));
        bytes += to - from;
        for part in from * parts / size..parts {
            let overlap = to.min(start(part + 1)).saturating_sub(from.max(start(part)));
            if let Some(sum) = filled.get_mut(part as usize) {
                *sum += overlap;
            }
            if start(part + 1) >= to {
                break;
            }
        }
    }
    let percent =
        |(part, sum): (u64, u64)| (sum * 100 / (start(part + 1) - start(part)).max(1)).min(100) as u8;
    (bytes, (0..parts).zip(filled).map(percent).collect())
}

impl Node {
    /// The flights under way.
    pub fn flights(&self) -> Vec<Flight> {
        let views = self.inner.views.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut flights: Vec<Flight> = views.iter().map(|view| self.flight(view)).collect();
        let held: Vec<_> =
            views.iter().zip(&flights).map(|(view, flight)| (view.blob, flight.bytes)).collect();
        let rates = self.inner.speeds.look(Instant::now(), &held);
        flights.iter_mut().zip(rates).for_each(|(flight, rate)| flight.rate = rate);
        flights
    }

    fn flight(&self, view: &FlightView) -> Flight {
        let role = match view.role {
            RoleView::Asking => "asking",
            RoleView::Lead => "lead",
            RoleView::Joining => "joining",
            RoleView::Follower => "follower",
        };
        // What is in flight is at hand; nothing else is worth a disk access here.
        let blob = self.inner.store.at_hand(&view.blob);
        let filling = blob.map(|blob| (blob.manifest().size(), filling(blob.manifest(), &blob.held())));
        let (size, (bytes, filled)) = filling.unwrap_or_default();
        Flight {
            package: self.label(&view.blob),
            blob: view.blob.to_string(),
            role: role.to_owned(),
            lead: view.lead.map(|lead| lead.to_string()),
            followers: view.followers,
            held: view.held,
            chunks: view.count,
            pulling: view.pulling,
            size,
            bytes,
            rate: None,
            filled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::id::{ChunkId, PackId};
    use crate::core::manifest::Chunk;

    fn manifest(lengths: &[u32]) -> Manifest {
        let mut offset = 0;
        let chunk = |(n, &length): (usize, &u32)| {
            offset += u64::from(length);
            Chunk {
                id: ChunkId::of(&n.to_le_bytes()),
                offset: offset - u64::from(length),
                length,
                pack: 0,
                pack_offset: offset,
                stored: length,
            }
        };
        let chunks: Vec<Chunk> = lengths.iter().enumerate().map(chunk).collect();
        Manifest::build(BlobId::of(b"b"), [0; 32], vec![PackId::of(b"")], &chunks).expect("consistent")
    }

    #[test]
    fn the_parts_of_a_blob_fill_by_bytes() {
        let few = manifest(&[100, 100, 200]);
        assert_eq!(filling(&few, &ChunkSet::new()), (0, vec![0, 0, 0]));
        assert_eq!(filling(&few, &ChunkSet::full(3)), (400, vec![100, 100, 100]));
        // The last chunk is the second half.
        assert_eq!(filling(&few, &[2].into_iter().collect()), (200, vec![0, 49, 100]));
        let many = manifest(&[7; 1000]);
        let (bytes, filled) = filling(&many, &(0..505).collect());
        assert_eq!((bytes, filled.len()), (505 * 7, PARTS));
        assert_eq!(filled[..50], [100; 50]);
        assert_eq!((filled[50], filled[51]), (50, 0));
    }

    #[test]
    fn a_rate_needs_two_looks_and_does_not_outlive_its_flight() {
        let (speeds, start, blob) = (Speeds::default(), Instant::now(), BlobId::of(b"b"));
        let at = |ms: u64, bytes| speeds.look(start + Duration::from_millis(ms), &[(blob, bytes)])[0];
        assert_eq!(at(0, 0), None);
        assert_eq!(at(100, 1000), None, "too early");
        assert_eq!(at(500, 1000), Some(2000));
        assert_eq!(at(1000, 3000), Some(2600), "smoothed");
        assert_eq!(at(9000, 4000), None, "nobody looked for long");
        assert_eq!(speeds.look(start, &[]), []);
        assert_eq!(at(9500, 5000), None, "another flight");
    }
}
