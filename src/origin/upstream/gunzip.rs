//! Texts that come compressed. Indexes are large and shrink to a tenth; what is kept and hashed is the text.

use std::io::Write;

use bytes::{Buf, Bytes};
use flate2::write::MultiGzDecoder;

/// So much is unpacked at a time, in bytes; at worst it becomes a thousand times as much.
const STEP: usize = 4 << 10;
/// No text is longer, in bytes.
const LONGEST: u64 = 1 << 30;

/// Unpacks a stream as it comes.
#[derive(Debug)]
pub(super) struct Gunzip {
    decoder: MultiGzDecoder<Vec<u8>>,
    packed: Bytes,
    made: u64,
}

impl Gunzip {
    pub(super) fn new() -> Self {
        Self { decoder: MultiGzDecoder::new(Vec::new()), packed: Bytes::new(), made: 0 }
    }

    /// Takes more of the stream; what came before has been unpacked.
    pub(super) fn feed(&mut self, packed: Bytes) {
        self.packed = packed;
    }

    /// What can be unpacked next; `None` if more of the stream has to come first.
    ///
    /// # Errors
    /// In words.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, String> {
        while !self.packed.is_empty() {
            let step = self.packed.len().min(STEP);
            self.decoder.write_all(&self.packed[..step]).map_err(|error| error.to_string())?;
            self.packed.advance(step);
            if let Some(text) = self.take()? {
                return Ok(Some(text));
            }
        }
        Ok(None)
    }

    /// The stream has ended: what is left of the text.
    ///
    /// # Errors
    /// In words: it has broken off, or was damaged.
    pub(super) fn end(&mut self) -> Result<Option<Bytes>, String> {
        self.decoder.try_finish().map_err(|error| error.to_string())?;
        self.take()
    }

    fn take(&mut self) -> Result<Option<Bytes>, String> {
        let text = std::mem::take(self.decoder.get_mut());
        self.made += text.len() as u64;
        if self.made > LONGEST {
            return Err(format!("it unpacks to more than {LONGEST} bytes"));
        }
        Ok((!text.is_empty()).then(|| text.into()))
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).expect("memory");
        encoder.finish().expect("memory")
    }

    fn unpacked(pieces: &[&[u8]]) -> Result<Vec<u8>, String> {
        let (mut gunzip, mut text) = (Gunzip::new(), Vec::new());
        for piece in pieces {
            gunzip.feed(Bytes::copy_from_slice(piece));
            while let Some(next) = gunzip.next()? {
                text.extend_from_slice(&next);
            }
        }
        text.extend_from_slice(&gunzip.end()?.unwrap_or_default());
        Ok(text)
    }

    #[test]
    fn what_breaks_off_is_no_text() {
        let whole = packed(&b"an index ".repeat(2000));
        assert_eq!(unpacked(&[&whole]).map(|text| text.len()), Ok(18_000));
        assert!(unpacked(&[&whole[..whole.len() - 9]]).is_err());
        assert!(unpacked(&[b"no gzip at all"]).is_err());
        let mut damaged = whole.clone();
        let last = damaged.len() - 6;
        damaged[last] ^= 1;
        assert!(unpacked(&[&damaged]).is_err());
    }

    #[test]
    fn a_bomb_is_unpacked_in_small_parts() {
        let bomb = packed(&vec![0; 64 << 20]);
        let mut gunzip = Gunzip::new();
        gunzip.feed(bomb.into());
        while let Some(text) = gunzip.next().expect("gzip") {
            assert!(text.len() <= STEP * 1100, "{}", text.len());
        }
        gunzip.made = LONGEST - 10;
        gunzip.feed(packed(&[0; 100]).into());
        assert!(gunzip.next().is_err() || gunzip.end().is_err());
    }

    proptest! {
        #[test]
        fn it_is_the_same_however_it_comes(text in any::<Vec<u8>>(), cut in any::<prop::sample::Index>()) {
            let whole = [packed(&text), packed(b"second member")].concat();
            let cut = cut.index(whole.len());
            let got = unpacked(&[&whole[..cut], &whole[cut..]]);
            prop_assert_eq!(got, Ok([&text[..], b"second member"].concat()));
        }

        #[test]
        fn noise_does_no_harm(noise in any::<Vec<u8>>()) {
            unpacked(&[&packed(b"x")[..10], &noise]).ok();
        }
    }
}
