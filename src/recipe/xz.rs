//! xz: unpacked, and compressed again as `xz` and dpkg do.

use std::io::{self, Read, Write};

use liblzma::stream::{Action, Check, Filters, LzmaOptions, MtStreamBuilder, Status, Stream};

use super::RecipeError;
use super::span::{Compare, Span};

/// A decoder may take so much memory, in bytes: enough for every preset.
const DECODER: u64 = 200 << 20;
/// Presets above need more memory than there is for it: 9 takes 674 MB a thread.
const HIGHEST: u32 = 8;
/// The longest blocks, in bytes: those of the highest preset. A thread holds one, packed and unpacked.
const LONGEST_BLOCK: u64 = 96 << 20;
/// With longer ones, or a higher preset than 6, two threads take too much memory.
const BLOCK_FOR_TWO: u64 = 32 << 20;
/// Content that is compressed to see whether a preset may be the one, in bytes.
const TRIAL: usize = 1 << 20;

const EXTREME: u32 = 1 << 31;
const CHECKS: [Check; 4] = [Check::None, Check::Crc32, Check::Crc64, Check::Sha256];

/// How a stream was compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Xz {
    preset: u32,
    check: usize,
    /// By liblzma's encoder for several threads, which writes blocks of this length, in bytes; 0: the one
    /// for a single thread.
    block: u64,
}

fn failed(error: liblzma::stream::Error) -> RecipeError {
    RecipeError::Codec(format!("xz: {error}"))
}

impl Xz {
    pub(super) fn numbers(&self) -> [u64; 4] {
        let extreme = self.preset & EXTREME != 0;
        [u64::from(self.preset & !EXTREME), extreme.into(), self.check as u64, self.block]
    }

    /// # Errors
    /// [`RecipeError::Malformed`] if there is no such encoder, or none that fits into memory.
    pub(super) fn of([preset, extreme, check, block]: [u64; 4]) -> Result<Self, RecipeError> {
        let known = preset <= u64::from(HIGHEST) && extreme < 2 && check < CHECKS.len() as u64;
        if !known || block > LONGEST_BLOCK {
            return Err(RecipeError::Malformed("xz with settings that are not known"));
        }
        let preset = preset as u32 | if extreme == 1 { EXTREME } else { 0 };
        Ok(Self { preset, check: check as usize, block })
    }

    fn encoder(&self) -> Result<Stream, RecipeError> {
        let check = CHECKS[self.check];
        if self.block == 0 {
            return Stream::new_easy_encoder(self.preset, check).map_err(failed);
        }
        // The result does not depend on how many threads there are.
        let large = self.preset & !EXTREME > 6 || self.block > BLOCK_FOR_TWO;
        let threads = if large { 1 } else { 2 };
        let mut builder = MtStreamBuilder::new();
        builder.threads(threads).preset(self.preset).check(check).block_size(self.block);
        builder.encoder().map_err(failed)
    }
}

/// Unpacks a stream that is all of this; false if it is damaged, or not only that.
///
/// # Errors
/// [`RecipeError::Io`] of what it is read from or written to.
pub(super) fn unpack(span: &Span, out: &mut dyn Write) -> Result<bool, RecipeError> {
    let mut decoder = Stream::new_stream_decoder(DECODER, 0).map_err(failed)?;
    let mut reader = span.reader();
    let (mut input, mut output) = (vec![0; 64 << 10], vec![0; 256 << 10]);
    let (mut start, mut end) = (0, 0);
    loop {
        if start == end {
            (start, end) = (0, reader.read(&mut input)?);
        }
        let action = if end == 0 { Action::Finish } else { Action::Run };
        let (read, written) = (decoder.total_in(), decoder.total_out());
        let status = decoder.process(&input[start..end], &mut output, action);
        start += (decoder.total_in() - read) as usize;
        let new = (decoder.total_out() - written) as usize;
        out.write_all(&output[..new])?;
        match status {
            Ok(Status::StreamEnd) => return Ok(decoder.total_in() == span.len()),
            Ok(_) if new > 0 || decoder.total_in() > read => {}
            _ => return Ok(false),
        }
    }
}

/// What a stream's own headers say of how it was made.
struct Said {
    check: usize,
    dictionary: u8,
    /// Bytes of content in the first block, and where its data begin; the encoder for several threads
    /// writes it down.
    block: Option<u64>,
    data: u64,
}

fn look(span: &Span) -> io::Result<Option<Said>> {
    let head = span.bytes(0, 64)?;
    let read = || {
        let flags = *head.get(7)?;
        let check = [0, 1, 4, 10].iter().position(|&known| known == flags)?;
        let (length, flags) = (*head.get(12)?, *head.get(13)?);
        // One filter, and no flags that are not known.
        if length == 0 || flags & 0x3f != 0 {
            return None;
        }
        let mut rest = super::plan::Read(head.get(14..)?);
        let packed = if flags & 0x40 != 0 { Some(rest.number().ok()?) } else { None };
        let block = if flags & 0x80 != 0 { Some(rest.number().ok()?) } else { None };
        let [0x21, 1, dictionary] = rest.take(3).ok()? else { return None };
        let block = packed.and(block);
        Some(Said { check, dictionary: *dictionary, block, data: 12 + (u64::from(length) + 1) * 4 })
    };
    Ok(read())
}

/// The presets whose dictionary is written down like this, the likeliest first.
fn presets(dictionary: u8) -> Vec<u32> {
    // As the header has it: 12 is 256 KiB, each two more double it.
    let plain: &[u32] = match dictionary {
        12 => &[0],
        16 => &[1],
        18 => &[2],
        20 => &[4, 3],
        22 => &[6, 5],
        24 => &[7],
        26 => &[8],
        _ => &[],
    };
    plain.iter().flat_map(|&preset| [preset, preset | EXTREME]).collect()
}

/// How a stream can be compressed again from its contents, proved; or why not.
///
/// # Errors
/// [`RecipeError::Io`].
pub(super) fn learn(span: &Span, contents: &Span) -> Result<Result<Xz, String>, RecipeError> {
    let Some(said) = look(span)? else { return Ok(Err("it has filters that are not known".into())) };
    let presets = presets(said.dictionary);
    if presets.is_empty() {
        return Ok(Err("its encoder needs too much memory, or is not known".into()));
    }
    let sample = said.block.map_or(TRIAL, |block| block.min(TRIAL as u64) as usize);
    let (sample, packed) = (contents.bytes(0, sample)?, span.bytes(said.data, TRIAL)?);
    for preset in presets {
        if !begins_alike(preset, &sample, &packed)? {
            continue;
        }
        let block = match said.block {
            None => 0,
            // A single block says nothing of how long others would be, and yet that shows in its header.
            Some(block) if block == contents.len() => usual_block(preset)?.max(block),
            Some(block) => block,
        };
        let Ok(xz) = Xz::of(Xz { preset, check: said.check, block }.numbers()) else { break };
        let mut compare = Compare::with(span);
        let mut again = Again::new(&xz, &mut compare)?;
        let same = io::copy(&mut contents.reader(), &mut again).is_ok() && again.finish().is_ok();
        if same && compare.at_end() {
            return Ok(Ok(xz));
        }
    }
    Ok(Err("no encoder that is known writes it like this".into()))
}

/// How long the blocks of a preset are where nobody has said otherwise.
fn usual_block(preset: u32) -> Result<u64, RecipeError> {
    let options = LzmaOptions::new_preset(preset).map_err(failed)?;
    Ok(Filters::new().lzma2(&options).mt_block_size())
}

/// Whether a preset compresses a sample of the contents to what the stream begins with.
fn begins_alike(preset: u32, sample: &[u8], packed: &[u8]) -> Result<bool, RecipeError> {
    let options = LzmaOptions::new_preset(preset).map_err(failed)?;
    let mut encoder = Stream::new_raw_encoder(Filters::new().lzma2(&options)).map_err(failed)?;
    let mut output = Vec::with_capacity(sample.len() + 4096);
    encoder.process_vec(sample, &mut output, Action::Run).map_err(failed)?;
    // Of the last chunk more may follow.
    Ok(packed.starts_with(&output[..output.len().min(packed.len())]))
}

/// Compresses what is written to it.
pub(super) struct Again<'a> {
    stream: Stream,
    output: Vec<u8>,
    out: &'a mut dyn Write,
}

impl<'a> Again<'a> {
    pub(super) fn new(xz: &Xz, out: &'a mut dyn Write) -> Result<Self, RecipeError> {
        Ok(Self { stream: xz.encoder()?, output: vec![0; 64 << 10], out })
    }

    /// Gives the encoder some bytes, and hands on what comes; how many were taken, and whether that was all.
    fn process(&mut self, bytes: &[u8], action: Action) -> io::Result<(usize, bool)> {
        let (read, written) = (self.stream.total_in(), self.stream.total_out());
        let status = self.stream.process(bytes, &mut self.output, action).map_err(io::Error::other)?;
        let new = (self.stream.total_out() - written) as usize;
        self.out.write_all(&self.output[..new])?;
        Ok(((self.stream.total_in() - read) as usize, status == Status::StreamEnd))
    }

    pub(super) fn finish(mut self) -> Result<(), RecipeError> {
        while !self.process(&[], Action::Finish)?.1 {}
        Ok(())
    }
}

impl Write for Again<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        while taken == 0 && !bytes.is_empty() {
            taken = self.process(bytes, Action::Run)?.0;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
