//! Content-defined boundaries: where a blob is cut.
//!
//! An average of 64 KiB costs 0.06 % of manifest and finds real reuse between versions of files
//! that are not compressed; smaller chunks find little more.

use std::io::Read;

use fastcdc::v2020::StreamCDC;

/// The shortest chunk, in bytes (the last of a blob may be shorter).
pub const MIN_CHUNK: u32 = 16 << 10;
/// The average that the boundaries aim at, in bytes.
pub const AVERAGE_CHUNK: u32 = 64 << 10;
/// The longest chunk, in bytes; every reader may rely on it.
pub const MAX_CHUNK: u32 = 256 << 10;

/// The chunks of a stream in order; reads ahead by less than two chunks.
pub fn chunks<R: Read>(source: R) -> impl Iterator<Item = std::io::Result<Vec<u8>>> {
    StreamCDC::new(source, MIN_CHUNK as _, AVERAGE_CHUNK as _, MAX_CHUNK as _)
        .map(|chunk| chunk.map(|chunk| chunk.data).map_err(std::io::Error::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: &[u8], length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(seed).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn cut(bytes: &[u8]) -> Vec<Vec<u8>> {
        chunks(bytes).collect::<Result<_, _>>().expect("memory does not fail")
    }

    #[test]
    fn covers_the_stream_within_bounds() {
        let bytes = noise(b"a", 3_000_000);
        let pieces = cut(&bytes);
        assert_eq!(pieces.concat(), bytes);
        assert!(pieces.iter().all(|piece| piece.len() <= MAX_CHUNK as usize));
        let average = bytes.len() / pieces.len();
        assert!((40_000..110_000).contains(&average), "{average}");
        assert_eq!(cut(b""), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn an_insertion_moves_few_boundaries() {
        let old = noise(b"b", 3_000_000);
        let new = [&old[..1_000_000], b"inserted", &old[1_000_000..]].concat();
        let held: std::collections::HashSet<_> = cut(&old).into_iter().collect();
        let fresh: usize = cut(&new).iter().filter(|piece| !held.contains(*piece)).map(Vec::len).sum();
        assert!(fresh < 600_000, "{fresh}");
    }
}
