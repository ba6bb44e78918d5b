//! zstd: unpacked, and compressed again as its own library does.

use std::io::{self, Write};

use zstd::stream::write::Encoder;
use zstd::zstd_safe;

use super::RecipeError;
use super::span::{Compare, Span};

/// Windows of more than so many bits are not opened.
const WINDOW: u32 = 27;
/// The highest level that is compressed with: 22 takes 770 MB for long content.
const HIGHEST: u64 = 21;
/// ... by threads, which hold several jobs of four windows each.
const HIGHEST_OF_WORKERS: u64 = 19;
/// Levels, the likeliest first.
const LEVELS: [i32; 21] = [3, 19, 1, 9, 6, 18, 15, 12, 10, 8, 7, 5, 4, 2, 11, 13, 14, 16, 17, 20, 21];
/// Content that is compressed to see whether a level may be the one.
const TRIAL: usize = 512 << 10;

/// How a frame was compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zstd {
    level: i32,
    checksum: bool,
    /// By threads of its own, as the `zstd` program and dpkg do: the content is cut into jobs.
    workers: bool,
    /// The frame says how long its content is: this long, plus one; 0: it does not say.
    length: u64,
}

impl Zstd {
    pub(super) fn numbers(&self) -> [u64; 3] {
        [self.level as u64, u64::from(self.checksum) | u64::from(self.workers) << 1, self.length]
    }

    /// # Errors
    /// [`RecipeError::Malformed`] if there is no such level.
    pub(super) fn of([level, flags, length]: [u64; 3]) -> Result<Self, RecipeError> {
        let (checksum, workers) = (flags & 1 == 1, flags & 2 == 2);
        let highest = if workers { HIGHEST_OF_WORKERS } else { HIGHEST };
        if level == 0 || level > highest || flags > 3 {
            return Err(RecipeError::Malformed("zstd with settings that are not known"));
        }
        Ok(Self { level: level as i32, checksum, workers, length })
    }
}

/// Unpacks a frame that is all of this; false if it is damaged, or not only that.
///
/// # Errors
/// [`RecipeError::Io`] of what it is written to.
pub(super) fn unpack(span: &Span, out: &mut dyn Write) -> Result<bool, RecipeError> {
    let mut decoder = zstd::Decoder::with_buffer(span.reader())?.single_frame();
    decoder.window_log_max(WINDOW)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match io::Read::read(&mut decoder, &mut buffer) {
            Ok(0) => break,
            Ok(read) => out.write_all(&buffer[..read])?,
            Err(_) => return Ok(false),
        }
    }
    let mut rest = decoder.finish();
    Ok(io::BufRead::fill_buf(&mut rest)?.is_empty())
}

/// How a frame can be compressed again from its contents, proved; or why not.
///
/// # Errors
/// [`RecipeError::Io`].
pub(super) fn learn(span: &Span, contents: &Span) -> Result<Result<Zstd, String>, RecipeError> {
    let head = span.bytes(0, 18)?;
    let Some(&flags) = head.get(4) else { return Ok(Err("it is cut off".into())) };
    let says_length = zstd_safe::get_frame_content_size(&head).ok().flatten().is_some();
    let length = if says_length { contents.len() + 1 } else { 0 };
    let packed = span.bytes(0, TRIAL)?;
    let sample = contents.bytes(0, TRIAL)?;
    for level in LEVELS {
        let zstd = Zstd { level, checksum: flags & 4 != 0, workers: false, length };
        if !begins_alike(&zstd, &sample, contents.len(), &packed)? {
            continue;
        }
        // The first job begins like the whole.
        let by_workers = Zstd { workers: true, ..zstd };
        let tried = if level as u64 > HIGHEST_OF_WORKERS { &[zstd][..] } else { &[zstd, by_workers] };
        for zstd in tried {
            if gives(zstd, span, contents)? {
                return Ok(Ok(*zstd));
            }
        }
    }
    Ok(Err("no level of this version of zstd writes it like this".into()))
}

fn gives(zstd: &Zstd, span: &Span, contents: &Span) -> Result<bool, RecipeError> {
    let mut compare = Compare::with(span);
    let mut again = Again::new(zstd, &mut compare)?;
    let same = io::copy(&mut contents.reader(), &mut again).is_ok() && again.finish().is_ok();
    Ok(same && compare.at_end())
}

fn begins_alike(zstd: &Zstd, sample: &[u8], length: u64, packed: &[u8]) -> Result<bool, RecipeError> {
    if sample.len() as u64 == length {
        return Ok(true); // the whole is compared anyway
    }
    let mut output = Vec::new();
    let mut again = Again::new(zstd, &mut output)?;
    again.write_all(sample)?;
    drop(again);
    Ok(packed.starts_with(&output[..output.len().min(packed.len())]))
}

/// Compresses what is written to it.
pub(super) struct Again<'a>(Encoder<'static, &'a mut dyn Write>);

impl<'a> Again<'a> {
    pub(super) fn new(zstd: &Zstd, out: &'a mut dyn Write) -> Result<Self, RecipeError> {
        let mut encoder = Encoder::new(out, zstd.level)?;
        encoder.include_checksum(zstd.checksum)?;
        encoder.include_contentsize(zstd.length > 0)?;
        if zstd.workers {
            // However many there are, they write the same.
            encoder.multithread(1)?;
        }
        if let Some(length) = zstd.length.checked_sub(1) {
            encoder.set_pledged_src_size(Some(length))?;
        }
        Ok(Self(encoder))
    }

    pub(super) fn finish(self) -> Result<(), RecipeError> {
        self.0.finish()?;
        Ok(())
    }
}

impl Write for Again<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_have_written_is_written_again() {
        let line = |n: u32| format!("{} and {n}\n", n.wrapping_mul(n) % 90_001).into_bytes();
        let content: Vec<u8> = (0..500_000).flat_map(line).collect();
        for (level, threads) in [(1, 0), (1, 3), (3, 2)] {
            let mut encoder = Encoder::new(Vec::new(), level).expect("memory");
            encoder.multithread(threads).expect("threads");
            encoder.write_all(&content).expect("memory");
            let packed = encoder.finish().expect("memory");
            let learned = learn(&Span::of_bytes(&packed), &Span::of_bytes(&content))
                .expect("room")
                .expect("it is known");
            assert_eq!((learned.level, learned.workers), (level, threads > 0));
            assert_eq!(Zstd::of(learned.numbers()).expect("its own"), learned);
        }
    }
}
