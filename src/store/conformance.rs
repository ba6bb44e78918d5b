//! What every store must do, run on each of them; and what only a disk can suffer.

use std::path::Path;
use std::sync::Arc;

use super::file::path;
use super::{Blob, Checked, DiskStore, Leftover, Limits, MemoryStore, Store, StoreError};
use crate::core::bitrate::Size;
use crate::core::id::{BlobId, ChunkId, PackId, PackageName};
use crate::core::manifest::{Chunk, Manifest};
use crate::core::quota::Quotas;

const LIMITS: Limits = Limits { quota: 1_000_000, reserve: 0, packages: Quotas::NONE };

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

/// A store of each kind, whose packages have these quotas.
fn on_every_store_with(quotas: &[&str], test: impl Fn(&dyn Store)) {
    let written: Vec<_> = quotas.iter().map(|text| text.parse().expect("valid")).collect();
    let packages = Quotas::new(&written, Size(LIMITS.quota)).expect("valid");
    test(&MemoryStore::with_packages(LIMITS.quota, packages.clone()));
    let dir = tempfile::tempdir().expect("a folder");
    let store = DiskStore::open(dir.path(), Limits { packages, ..LIMITS }).expect("a fresh folder");
    test(&Arc::new(store));
}

#[test]
fn a_package_takes_no_more_than_its_quota() {
    let name = |name: &str| name.parse::<PackageName>().expect("valid");
    on_every_store_with(&["tool=3kB", "*=5kB"], |store| {
        let (tool, other) = (name("tool"), name("other"));
        let open = |seeds: &[u8], package| store.open_in(&manifest(seeds), Some(package));
        let holds = |seeds: &[u8]| store.get(&manifest(seeds).blob()).is_some();
        drop(open(&[9, 8], &other).expect("room"));
        drop(open(&[1, 2], &tool).expect("room"));
        drop(open(&[3], &tool).expect("room"));
        assert!(holds(&[1, 2]) && holds(&[3]), "both fit");
        std::thread::sleep(std::time::Duration::from_millis(2));
        store.touch(&manifest(&[1, 2]).blob());
        drop(open(&[4], &tool).expect("the oldest of them makes room"));
        assert!(holds(&[1, 2]) && !holds(&[3]) && holds(&[4]) && holds(&[9, 8]));
        let refused = |seeds: &[u8], package| match open(seeds, package) {
            Err(StoreError::OverQuota { package, needed, quota }) => (package, needed, quota),
            other => panic!("{:?}", other.map(|_| ())),
        };
        assert_eq!(refused(&[1, 2, 3, 4], &tool), ("tool".to_owned(), 4000, 3000), "never fits");
        assert!(store.set_pinned(&manifest(&[1, 2]).blob(), true));
        assert_eq!(refused(&[5, 6], &tool).0, "tool", "the pinned one stays");
        assert!(holds(&[4]), "and what would not have helped stays, too");
        drop(store.open(&manifest(&[1, 2, 3, 4, 5, 6])).expect("of no package that is known"));
        let group = |seeds: &[u8]| {
            let id = manifest(seeds).blob();
            store.list().into_iter().find(|held| held.blob == id).and_then(|held| held.group)
        };
        assert_eq!((group(&[4]).as_deref(), group(&[1, 2, 3, 4, 5, 6])), (Some("tool"), None));
        // Now it is known whose it is: it goes, and what is kept is told.
        store.set_package(&manifest(&[1, 2, 3, 4, 5, 6]).blob(), &other);
        store.set_package(&manifest(&[9, 8]).blob(), &tool);
        store.set_pinned(&manifest(&[9, 8]).blob(), true);
        let trimmed = store.trim();
        assert_eq!(trimmed.over, [("tool".to_owned(), 1000)]);
        assert_eq!((trimmed.blobs.len(), trimmed.cache_over), (2, 0));
        assert!(!holds(&[1, 2, 3, 4, 5, 6]) && !holds(&[4]) && holds(&[1, 2]) && holds(&[9, 8]));
    });
}

#[test]
fn lists_say_what_is_in_use_and_when_it_was_verified() {
    on_every_store(|store| {
        let it = manifest(&[1, 2]);
        let open = store.open(&it).expect("room");
        assert!(store.list()[0].in_use);
        fill(&*open, &[1, 2]);
        drop(open);
        store.set_verified(&it.blob(), 77);
        let held = &store.list()[0];
        assert_eq!((held.in_use, held.verified), (false, 77));
        let blob = store.get(&it.blob()).expect("held");
        let first = blob.recheck(0, 1).expect("readable");
        assert_eq!(first, Checked { bytes: 1000, damaged: vec![], next: Some(1) });
        let rest = blob.recheck(1, 1_000_000).expect("readable");
        assert_eq!(rest, Checked { bytes: 1000, damaged: vec![], next: None });
    });
}

#[test]
fn damage_is_found_on_the_disk_and_what_lost_a_chunk_is_not_complete_any_more() {
    let dir = tempfile::tempdir().expect("a folder");
    let seeds = [1, 2, 3, 4];
    let it = manifest(&seeds);
    let store = disk(dir.path());
    fill(&*store.open(&it).expect("room"), &seeds);
    let [whole, part] = ["blob", "part"].map(|ending| path(&dir.path().join("blobs"), &it.blob(), ending));
    let place = |seed: u8| store.index.place(&ChunkId::of(&content(seed))).map(|(blob, _)| blob);
    let file = std::fs::File::options().write(true).open(&whole).expect("there");
    std::os::unix::fs::FileExt::write_all_at(&file, b"rot", 2500).expect("writable");
    file.sync_all().expect("a disk");
    let blob = Store::get(&store, &it.blob()).expect("held");
    assert_eq!(place(3), Some(it.blob()));
    let checked = blob.recheck(0, u64::MAX).expect("readable");
    assert_eq!((checked.bytes, checked.damaged), (4000, vec![2]));
    assert!(!store.list()[0].complete && part.exists() && !whole.exists());
    assert_eq!((place(3), place(4)), (None, Some(it.blob())), "others do not look for it here");
    drop((blob, store));
    let store = disk(dir.path());
    assert!(!store.list()[0].complete, "nor after a restart");
    let blob = Store::get(&store, &it.blob()).expect("held");
    assert_eq!(blob.held(), [0, 1, 3].into_iter().collect());
    blob.write(2, &content(3)).expect("right");
    blob.finish().expect("a folder");
    assert!(store.list()[0].complete && whole.exists() && !part.exists());
    assert_eq!(store.index.place(&ChunkId::of(&content(3))).map(|(blob, _)| blob), Some(it.blob()));
    assert!(store.list()[0].verified > 0, "hashed on its way in");
}

#[test]
fn what_belongs_to_no_blob_is_left_over_once_it_is_old() {
    let dir = tempfile::tempdir().expect("a folder");
    let (store, whole) = (disk(dir.path()), manifest(&[1, 2]));
    fill(&*store.open(&whole).expect("room"), &[1, 2]);
    let blobs = dir.path().join("blobs");
    let stray = manifest(&[7]).blob();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
    for name in [format!("{stray}.manifest-new"), format!("{stray}.manifest"), "notes.txt".to_owned()] {
        std::fs::write(blobs.join(&name), [0; 5000]).expect("room");
    }
    assert!(store.leftovers(false).is_empty(), "they may be on their way");
    for file in walk(&blobs) {
        std::fs::File::options().append(true).open(file).and_then(|it| it.set_modified(old)).expect("ours");
    }
    let names = |left: Vec<Leftover>| {
        left.into_iter().map(|it| (it.name.len(), it.bytes >= 5000)).collect::<Vec<_>>()
    };
    assert_eq!(names(store.leftovers(true)).len(), 2, "a look changes nothing");
    let mut gone = names(store.leftovers(false));
    gone.sort_unstable();
    assert_eq!(gone, [(64 + ".manifest".len(), true), (64 + ".manifest-new".len(), true)]);
    assert!(store.leftovers(false).is_empty() && blobs.join("notes.txt").exists());
    assert_eq!(Store::get(&store, &whole.blob()).expect("held").read(1).expect("untouched"), content(2));
}

#[test]
fn looking_at_a_blob_is_no_use_of_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let it = manifest(&[1]);
    fill(&*disk(dir.path()).open(&it).expect("room"), &[1]);
    let store = disk(dir.path());
    let before = store.list()[0].last_used;
    std::thread::sleep(std::time::Duration::from_millis(3));
    Store::get(&store, &it.blob()).expect("held").recheck(0, u64::MAX).expect("readable");
    assert_eq!(store.list()[0].last_used, before);
    drop(store);
    std::fs::remove_dir_all(dir.path().join("index")).expect("an index");
    assert!(disk(dir.path()).list()[0].last_used > 0, "without an index, its file's age is known");
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
