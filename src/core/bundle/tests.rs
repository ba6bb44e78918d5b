//! A bundle that is cut, altered or absurd gives a clear error, and never a panic.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::core::chunker::MAX_CHUNK;
use crate::core::id::{BlobId, ChunkId, PackId};
use crate::core::manifest::{Chunk, Manifest};

/// The content of a chunk: some bytes that say which it is.
fn content(seed: u8) -> Vec<u8> {
    vec![seed; 1000 + usize::from(seed)]
}

fn manifest(seeds: &[u8]) -> Arc<Manifest> {
    let mut pack_offset = 0;
    let chunk = |&seed: &u8| {
        let length = content(seed).len() as u32;
        let id = ChunkId::of(&content(seed));
        let chunk = Chunk { id, offset: 0, length, pack: 0, pack_offset, stored: length };
        pack_offset += u64::from(length);
        chunk
    };
    let chunks: Vec<Chunk> = seeds.iter().map(chunk).collect();
    let blob = BlobId::of(seeds);
    Arc::new(Manifest::build(blob, [1; 32], vec![PackId::of(b"p")], &chunks).expect("consistent"))
}

fn item(version: &str, seeds: &[u8], without: Option<&[u8]>) -> Item {
    let manifest = manifest(seeds);
    let name = "demo".parse().expect("a name");
    let since = without.map(|_| "0".parse().expect("a version"));
    let entry = Entry { name, version: version.parse().expect("a version"), manifest: manifest.id(), since };
    Item { entry, manifest, without: without.map(self::manifest) }
}

fn layout(items: Vec<Item>) -> Layout {
    let catalog = [("timestamp.json".to_owned(), Bytes::from_static(b"{}"))];
    Layout::new(("http://hq".into(), [7; 32]), catalog, items, Form::Plain).expect("small")
}

fn bundle(items: Vec<Item>) -> Vec<u8> {
    let layout = layout(items);
    let length = layout.length();
    let Layout { beginning, runs, mut writer, manifests, .. } = layout;
    let mut bytes = beginning.to_vec();
    for run in runs {
        bytes.extend(writer.run(&run));
        for index in run.chunks() {
            let id = manifests[run.manifest as usize].chunks()[index as usize].id;
            bytes.extend((0..=255).map(content).find(|content| ChunkId::of(content) == id).expect("ours"));
        }
    }
    bytes.extend(writer.end());
    assert_eq!(bytes.len() as u64, length);
    bytes
}

fn sample() -> Vec<u8> {
    bundle(vec![item("1", &[1, 2, 3, 2], None), item("2", &[1, 4, 3, 5], None)])
}

/// What a reader gets of some bytes: the runs, those that are as they were written, and how it ends.
fn read(bytes: &[u8]) -> (Vec<Run>, usize, Result<(), BundleError>) {
    let mut reader = Reader::default();
    let mut pieces = Pieces::default();
    bytes.chunks(700).for_each(|piece| pieces.push(Bytes::copy_from_slice(piece)));
    let (mut runs, mut manifests, mut right) = (Vec::new(), Vec::new(), 0);
    loop {
        let step = match reader.take(pieces.take(reader.wants())) {
            Ok(step) => step,
            Err(error) => return (runs, right, Err(error)),
        };
        match step {
            Step::End => return (runs, right, Ok(())),
            Step::Manifest(id, encoded) => manifests.push(Manifest::decode(id, encoded).ok()),
            Step::Run(run) => {
                let payload = pieces.take(run.length as usize);
                if payload.len() < run.length as usize {
                    return (runs, right, Err(reader.cut_in_run(&run, payload.len())));
                }
                let manifest = manifests.get(run.manifest as usize).and_then(Option::as_ref);
                let pieces = manifest.and_then(|manifest| run.pieces(manifest)).unwrap_or_default();
                let good = |piece: &&Piece| piece.is(&payload[piece.place.clone()]);
                right +=
                    usize::from(!pieces.is_empty() && pieces.iter().filter(good).count() == pieces.len());
                runs.push(run);
            }
            Step::Held(run) => runs.push(run),
            _ => {}
        }
    }
}

#[test]
fn a_bundle_can_be_read_back_and_has_each_chunk_once() {
    let (runs, right, end) = read(&sample());
    assert_eq!(end, Ok(()));
    let chunks: u32 = runs.iter().map(|run| run.count).sum();
    assert_eq!((chunks, right), (5, runs.len()), "1, 2, 3, 4, 5");
}

#[test]
fn what_an_older_version_has_is_left_out_of_that_package_alone() {
    let (runs, ..) = read(&bundle(vec![item("2", &[1, 4, 3], Some(&[1, 3]))]));
    assert_eq!(runs.iter().flat_map(Run::chunks).collect::<Vec<_>>(), [1]);
    let (runs, ..) = read(&bundle(vec![item("2", &[1, 4, 3], Some(&[1, 3])), item("7", &[3, 9], None)]));
    assert_eq!(
        runs.iter().map(|run| (run.manifest, run.chunks())).collect::<Vec<_>>(),
        [(0, 1..2), (1, 0..2)]
    );
}

#[test]
fn runs_are_bounded_and_packed_ones_follow_the_pack() {
    let chunk = |n: u64, pack_offset| Chunk {
        id: ChunkId::of(&n.to_le_bytes()),
        offset: 0,
        length: MAX_CHUNK,
        pack: 0,
        pack_offset,
        stored: 100,
    };
    let chunks: Vec<Chunk> = (0..6).map(|n| chunk(n, if n > 2 { n * 1000 } else { n * 100 })).collect();
    let manifest = Manifest::build(BlobId::of(b""), [1; 32], vec![PackId::of(b"p")], &chunks);
    let manifest = Arc::new(manifest.expect("consistent"));
    let entry = Entry { manifest: manifest.id(), ..item("1", &[], None).entry };
    let runs = |form| {
        let item = Item { entry: entry.clone(), manifest: manifest.clone(), without: None };
        let layout = Layout::new((String::new(), [0; 32]), [], vec![item], form).expect("small");
        layout.runs.iter().map(Run::chunks).collect::<Vec<_>>()
    };
    assert_eq!(runs(Form::Plain), [0..2, 2..4, 4..6]);
    assert_eq!(runs(Form::Packed), [0..2, 2..3, 3..4, 4..5, 5..6]);
}

#[test]
fn runs_that_the_reader_holds_need_no_payload() {
    let bytes = sample();
    let (runs, ..) = read(&bytes);
    let mut short = Vec::new();
    let mut at = 0;
    for run in &runs {
        let head = run.head(Kind::Run).encode();
        let found = bytes[at..].windows(HEAD).position(|window| window == head).expect("written");
        short.extend(&bytes[at..at + found]);
        short.extend(run.held());
        at += found + HEAD + run.length as usize;
    }
    short.extend(&bytes[at..]);
    assert_eq!(read(&short), (runs, 0, Ok(())));
}

#[test]
fn what_is_no_bundle_is_named() {
    assert_eq!(read(b"").2, Err(BundleError::NoBundle));
    assert_eq!(read(b"PK\x03\x04 and more").2, Err(BundleError::NoBundle));
    assert_eq!(read(b"BRANCHB9 and more").2, Err(BundleError::UnknownFormat(9)));
}

#[test]
fn absurd_lengths_are_refused_before_they_are_believed() {
    for (kind, length) in [(Kind::Contents, u32::MAX), (Kind::Catalog, 5), (Kind::End, 48), (Kind::Run, 5)] {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(Head::of(kind, length).encode());
        let mut reader = Reader::default();
        reader.take(Bytes::copy_from_slice(&bytes[..8])).expect("the magic");
        let error = reader.take(Bytes::copy_from_slice(&bytes[8..])).expect_err("absurd");
        assert!(matches!(error, BundleError::Damaged { .. }), "{error}");
    }
    for run in [Run { length: MAX_RUN + 1, ..RUN }, Run { count: 0, ..RUN }, Run { first: u32::MAX, ..RUN }] {
        let error = Run::of(&run.head(Kind::Run), 0).expect_err("absurd");
        assert!(matches!(error, BundleError::Damaged { .. }), "{error}");
    }
}

const RUN: Run = Run { manifest: 0, first: 1, count: 1, length: 1, form: Form::Plain };

proptest! {
    #[test]
    fn cut_anywhere_it_is_known_as_cut(share in 0.0f64..1.0) {
        let bytes = sample();
        let (_, _, end) = read(&bytes[..(bytes.len() as f64 * share) as usize]);
        let error = end.expect_err("cut");
        prop_assert!(matches!(error, BundleError::Cut { .. } | BundleError::NoBundle), "{}", error);
    }

    #[test]
    fn an_altered_byte_is_found_wherever_it_is(share in 0.0f64..1.0, flip in 1u8..=255) {
        let mut bytes = sample();
        let (runs, ..) = read(&bytes);
        let at = (bytes.len() as f64 * share) as usize;
        bytes[at] ^= flip;
        let (_, right, end) = read(&bytes);
        // In a chunk it costs that chunk's run and nothing else; elsewhere the bundle says so.
        prop_assert!(end.is_err() || right == runs.len() - 1, "{at}: {right} of {}", runs.len());
    }

    #[test]
    fn any_bytes_are_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..500), magic: bool) {
        if magic {
            bytes.splice(0..0, *MAGIC);
        }
        prop_assert!(read(&bytes).2.is_err());
    }

    #[test]
    fn pieces_come_out_as_they_went_in(lengths in proptest::collection::vec(0usize..50, 0..20), take in 1usize..60) {
        let all: Vec<u8> = (0..lengths.iter().sum::<usize>()).map(|at| at as u8).collect();
        let (mut pieces, mut rest, mut out) = (Pieces::default(), &all[..], Vec::new());
        for length in lengths {
            let (piece, more) = rest.split_at(length);
            pieces.push(Bytes::copy_from_slice(piece));
            rest = more;
        }
        while !pieces.is_empty() {
            out.extend(pieces.take(take));
        }
        prop_assert_eq!(out, all);
    }
}
