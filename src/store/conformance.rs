//! What every store must do, run on each of them; and what only a disk can suffer.

use std::path::Path;
use std::sync::Arc;

use super::file::path;
use super::{Blob, DiskStore, Limits, MemoryStore, Store, StoreError};
use crate::core::id::{BlobId, ChunkId, PackId};
use crate::core::manifest::{Chunk, Manifest};

const LIMITS: Limits = Limits { quota: 1_000_000, reserve: 0 };

fn content(seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; 1000];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

/// A blob of the chunks with these seeds.
fn manifest(seeds: &[u8]) -> Arc<Manifest> {
    let chunks: Vec<Chunk> = seeds
        .iter()
        .map(|&seed| Chunk {
            id: ChunkId::of(&content(seed)),
            offset: 0,
            length: 1000,
            pack: 0,
            pack_offset: u64::from(seed) * 1000,
            stored: 1000,
        })
        .collect();
    let whole: Vec<u8> = seeds.iter().flat_map(|&seed| content(seed)).collect();
    Arc::new(
        Manifest::build(BlobId::of(&whole), [0; 32], vec![PackId::of(b"")], &chunks).expect("consistent"),
    )
}

fn disk(dir: &Path) -> Arc<DiskStore> {
    Arc::new(DiskStore::open(dir, LIMITS).expect("a fresh folder"))
}

fn fill(blob: &dyn Blob, seeds: &[u8]) {
    for (index, &seed) in (0..).zip(seeds) {
        blob.write(index, &content(seed)).expect("room and the right bytes");
    }
    blob.finish().expect("a folder");
}

fn on_every_store(test: impl Fn(&dyn Store)) {
    test(&MemoryStore::new(LIMITS.quota));
    let dir = tempfile::tempdir().expect("a folder");
    test(&disk(dir.path()));
}

#[test]
fn fills_in_any_order_and_refuses_wrong_bytes() {
    on_every_store(|store| {
        let blob = store.open(&manifest(&[1, 2, 1, 3])).expect("room");
        assert!(matches!(blob.read(0), Err(StoreError::NotHeld(0))));
        assert!(matches!(blob.write(3, &content(9)), Err(StoreError::WrongHash(3))));
        assert!(matches!(blob.write(4, &content(9)), Err(StoreError::NotHeld(4))));
        assert_eq!(blob.write(3, &content(3)).expect("right"), [3]);
        assert_eq!(blob.write(2, &content(1)).expect("right"), [0, 2], "repeats are filled too");
        assert_eq!(blob.write(0, &content(1)).expect("right"), [0u32; 0]);
        assert_eq!(blob.held(), [0, 2, 3].into_iter().collect());
        blob.write(1, &content(2)).expect("right");
        blob.finish().expect("complete");
        assert_eq!(blob.read(1).expect("held"), content(2));
        let held = store.list();
        assert_eq!(held.len(), 1);
        assert!(held[0].complete && held[0].size == 4000);
    });
}

#[test]
fn runs_are_written_and_read_whole() {
    on_every_store(|store| {
        let seeds = [1, 2, 3, 2, 4, 5];
        let whole: Vec<u8> = seeds.iter().flat_map(|&seed| content(seed)).collect();
        let blob = store.open(&manifest(&seeds)).expect("room");
        let mut wrong = whole[..3000].to_vec();
        wrong[2500] ^= 1;
        assert!(matches!(blob.write(0, &wrong), Err(StoreError::WrongHash(2))));
        assert!(matches!(blob.write(0, &whole[..1500]), Err(StoreError::WrongHash(1))));
        assert!(blob.held().is_empty(), "nothing of a wrong run is kept");
        assert_eq!(blob.write(0, &whole[..3000]).expect("right"), [0, 1, 2, 3]);
        assert_eq!(blob.read_run(1, 2500).expect("held"), whole[1000..3000]);
        assert_eq!(blob.read_run(1, 1).expect("held"), whole[1000..2000], "one chunk at least");
        assert_eq!(blob.read_run(2, 1_000_000).expect("held"), whole[2000..4000], "as far as it is held");
        assert!(blob.read_cached(4, 1000).is_none());
        assert_eq!(blob.write(3, &whole[3000..]).expect("right"), [4, 5], "what is held is no news");
        assert_eq!(blob.read_run(0, 1_000_000).expect("held"), whole);
    });
}

#[test]
fn a_run_ends_before_damage() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = disk(dir.path());
    let (seeds, it) = ([1, 2, 3, 4], manifest(&[1, 2, 3, 4]));
    let blob = store.open(&it).expect("room");
    fill(&*blob, &seeds);
    let whole: Vec<u8> = seeds.iter().flat_map(|&seed| content(seed)).collect();
    assert_eq!(blob.read_run(0, 4000).expect("held"), whole);
    assert_eq!(blob.read_cached(0, 4000).expect("just read"), whole);
    let mut damaged = whole.clone();
    damaged[2100] ^= 1;
    std::fs::write(path(&dir.path().join("blobs"), &it.blob(), "blob"), &damaged).expect("a folder");
    assert!(blob.read_cached(0, 4000).is_none(), "what somebody has written to is hashed again");
    assert_eq!(blob.read_run(0, 4000).expect("the first two are right"), whole[..2000]);
    assert!(matches!(blob.read_run(2, 4000), Err(StoreError::NotHeld(2))));
    assert_eq!(blob.read_run(3, 4000).expect("right"), whole[3000..]);
    assert_eq!(blob.write(2, &content(3)).expect("right"), [2], "it can be filled again");
    assert_eq!(blob.read_run(0, 4000).expect("whole again"), whole);
}

#[test]
fn takes_over_what_other_blobs_hold() {
    on_every_store(|store| {
        fill(&*store.open(&manifest(&[1, 2, 3])).expect("room"), &[1, 2, 3]);
        let blob = store.open(&manifest(&[4, 3, 1, 5])).expect("room");
        assert_eq!(blob.held(), [1, 2].into_iter().collect());
        assert_eq!(blob.read(1).expect("held"), content(3));
    });
}

#[test]
fn evicts_the_oldest_that_is_not_in_use() {
    on_every_store(|store| {
        let half: Vec<u8> = (0..200).collect();
        let big: Vec<u8> = half.iter().cycle().take(400).copied().collect();
        let first = store.open(&manifest(&big)).expect("room");
        drop(store.open(&manifest(&big[1..])).expect("room"));
        std::thread::sleep(std::time::Duration::from_millis(2));
        let third = store.open(&manifest(&big[2..])).expect("the second makes room");
        assert!(store.get(&manifest(&big[1..]).blob()).is_none());
        let full = store.open(&manifest(&big[3..]));
        assert!(matches!(full, Err(StoreError::NoSpace { .. })));
        assert!(!store.remove(&first.manifest().blob()).expect("no failure"), "in use");
        drop(first);
        store.open(&manifest(&big[3..])).expect("the first makes room");
        drop(third);
    });
}

#[test]
fn what_is_pinned_is_not_evicted() {
    on_every_store(|store| {
        let half: Vec<u8> = (0..200).collect();
        let big: Vec<u8> = half.iter().cycle().take(400).copied().collect();
        let [first, second, third] = [&big[..], &big[1..], &big[2..]].map(manifest);
        assert!(!store.set_pinned(&first.blob(), true), "not held");
        for blob in [&first, &second] {
            drop(store.open(blob).expect("room"));
            assert!(store.set_pinned(&blob.blob(), true));
        }
        assert!(store.list().iter().all(|held| held.pinned));
        assert!(matches!(store.open(&third), Err(StoreError::NoSpace { .. })));
        assert!(store.set_pinned(&second.blob(), false));
        store.open(&third).expect("the second makes room");
        assert!(store.get(&first.blob()).is_some() && store.get(&second.blob()).is_none());
    });
}

#[test]
fn what_was_complete_or_partial_survives_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let (whole, part) = (manifest(&[1, 2, 3]), manifest(&[7, 8, 9]));
    let store = disk(dir.path());
    fill(&*store.open(&whole).expect("room"), &[1, 2, 3]);
    store.open(&part).expect("room").write(1, &content(8)).expect("right");
    assert!(DiskStore::open(dir.path(), LIMITS).is_err(), "one process at a time");
    drop(store);
    std::fs::remove_dir_all(dir.path().join("index")).expect("an index");
    let store = disk(dir.path());
    let again = store.get(&whole.blob()).expect("complete");
    assert_eq!(again.read(2).expect("held"), content(3));
    assert_eq!(store.get(&part.blob()).expect("partial").held(), [1].into_iter().collect());
    let blob = store.open(&manifest(&[2, 9])).expect("room");
    assert_eq!(blob.held(), [0].into_iter().collect(), "the index was rebuilt");
}

#[test]
fn a_damaged_index_is_rebuilt_and_damaged_files_are_healed() {
    let dir = tempfile::tempdir().expect("a folder");
    let whole = manifest(&[1, 2, 3]);
    let store = disk(dir.path());
    fill(&*store.open(&whole).expect("room"), &[1, 2, 3]);
    drop(store);
    for file in walk(&dir.path().join("index")) {
        std::fs::write(file, b"noise").expect("writable");
    }
    let store = disk(dir.path());
    let blob = store.get(&whole.blob()).expect("complete");
    assert_eq!(blob.read(0).expect("held"), content(1));
    let file = path(&dir.path().join("blobs"), &whole.blob(), "blob");
    let mut bytes = std::fs::read(&file).expect("there");
    bytes[1500] ^= 1;
    std::thread::sleep(std::time::Duration::from_millis(20));
    std::fs::write(&file, &bytes[..2500]).expect("writable");
    assert_eq!(blob.read(0).expect("unharmed"), content(1));
    assert!(matches!(blob.read(1), Err(StoreError::WrongHash(1))), "altered");
    assert!(matches!(blob.read(2), Err(StoreError::WrongHash(2))), "cut");
    assert_eq!(blob.held(), [0].into_iter().collect());
    fill(&*blob, &[1, 2, 3]);
    assert_eq!(blob.read(2).expect("healed"), content(3));
}

#[test]
fn many_blobs_do_not_keep_their_files_open() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = disk(dir.path());
    let manifests: Vec<_> =
        (0..=255u8).map(|a| manifest(&[a])).chain((0..50).map(|a| manifest(&[a, 77]))).collect();
    for manifest in &manifests {
        let seeds: Vec<u8> = (0..=255)
            .filter(|&s| manifest.chunks().iter().any(|c| c.id == ChunkId::of(&content(s))))
            .collect();
        let blob = store.open(manifest).expect("room");
        seeds.iter().for_each(|&seed| {
            let index =
                manifest.chunks().iter().position(|c| c.id == ChunkId::of(&content(seed))).expect("its own");
            blob.write(index as u32, &content(seed)).expect("right");
        });
        blob.finish().expect("complete");
    }
    let blobs = dir.path().join("blobs");
    let open = std::fs::read_dir("/proc/self/fd").expect("Linux").flatten();
    let open =
        open.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|path| path.starts_with(&blobs))).count();
    assert!((1..=256).contains(&open), "{open} files are open");
    assert_eq!(store.get(&manifests[0].blob()).expect("closed, not gone").read(0).expect("held"), content(0));
}

#[test]
fn a_blob_without_its_manifest_is_dropped() {
    let dir = tempfile::tempdir().expect("a folder");
    let whole = manifest(&[1]);
    let store = disk(dir.path());
    fill(&*store.open(&whole).expect("room"), &[1]);
    drop(store);
    std::fs::write(path(&dir.path().join("blobs"), &whole.blob(), "manifest"), b"x").expect("writable");
    assert!(disk(dir.path()).list().is_empty());
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a folder").flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_disk_with_hardly_more_than_its_reserve_is_nearly_full() {
    let dir = tempfile::tempdir().expect("a folder");
    for (reserve, nearly) in [(0, false), (u64::MAX, true)] {
        let limits = Limits { reserve, ..LIMITS };
        let store = Arc::new(DiskStore::open(dir.path(), limits).expect("a folder of its own"));
        assert_eq!(store.is_nearly_full(), nearly);
    }
}
