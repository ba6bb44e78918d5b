//! A stream, read for what its encoder chose.

use std::io::{BufRead, BufReader, Write};

use super::bits::{BitReader, DISTANCES, Decoder, LENGTHS, NoStream};
use super::guess::{AHEAD, Guess, Rules, known};
use super::{
    BY_ZLIB, FIRST_LENGTH, FIXED, LAST, Lengths, MOST_TOKENS, ORDER, STOP, STORED, TABLES, Token, fixed,
    often, tree,
};
use crate::recipe::RecipeError;
use crate::recipe::plan::write;
use crate::recipe::span::{Reader, Span};

/// So many tokens tell what kind of encoder it was.
const SAMPLE: usize = 10_000;
/// Content that they may stand for, in bytes.
const SAMPLE_CONTENT: usize = 1 << 20;

/// Writes what the encoder of a stream chose; false if it is no stream that can be described so, or is not
/// all of the span. `content` is what it unpacks to.
///
/// # Errors
/// [`RecipeError::Io`] of what is read and written.
pub(in crate::recipe) fn learn(
    span: &Span,
    content: &Span,
    out: &mut dyn Write,
) -> Result<bool, RecipeError> {
    let Some((number, rules)) = likeliest(span, content)? else { return Ok(false) };
    let mut choices = vec![number];
    let mut source = Source { guess: Guess::new(rules), content: content.reader() };
    let mut reader = BitReader::new(span);
    loop {
        let Ok(block) = Block::read(&mut reader) else { return Ok(false) };
        if !block.describe(&mut source, &mut choices)? {
            return Ok(false);
        }
        out.write_all(&choices)?;
        choices.clear();
        if block.last {
            break;
        }
    }
    let Ok(filling) = reader.align() else { return Ok(false) };
    out.write_all(&[filling])?;
    Ok(reader.position() == span.len())
}

/// The rules by which most of the first tokens are guessed.
fn likeliest(span: &Span, content: &Span) -> Result<Option<(u8, Rules)>, RecipeError> {
    let (mut reader, mut blocks, mut count) = (BitReader::new(span), Vec::new(), 0);
    while count < SAMPLE && blocks.last().is_none_or(|block: &Block| !block.last) {
        let Ok(block) = Block::read(&mut reader) else { return Ok(None) };
        count += block.tokens.len() + usize::from(block.stored.is_some());
        blocks.push(block);
    }
    let content = content.bytes(0, SAMPLE_CONTENT)?;
    let wrong = |rules: Rules, most: u32| {
        let mut guess = Guess::new(rules);
        guess.feed(&content);
        let (mut wrong, mut left) = (0, SAMPLE);
        for block in &blocks {
            if let Some((_, length)) = block.stored {
                guess.pass(length.into());
            }
            for &token in &block.tokens {
                if guess.ahead().is_empty() || left == 0 || wrong >= most {
                    return wrong;
                }
                left -= 1;
                wrong += u32::from(guess.token() != token);
                guess.take(token);
            }
        }
        wrong
    };
    let mut best = None;
    for (number, rules) in known().into_iter().enumerate() {
        let most = best.map_or(u32::MAX, |(_, _, wrong)| wrong);
        if most == 0 {
            break;
        }
        let wrong = wrong(rules, most);
        if wrong < most {
            best = Some((number as u8, rules, wrong));
        }
    }
    Ok(best.map(|(number, rules, _)| (number, rules)))
}

/// The content, and what is guessed from it.
struct Source {
    guess: Guess,
    content: BufReader<Reader>,
}

impl Source {
    /// Reads on until so much is known, or all; false if it is too much to follow.
    fn fill(&mut self, ahead: usize) -> Result<bool, RecipeError> {
        while self.guess.ahead().len() < ahead {
            let bytes = self.content.fill_buf()?;
            if bytes.is_empty() {
                break;
            }
            let read = bytes.len();
            if !self.guess.feed(bytes) {
                return Ok(false);
            }
            self.content.consume(read);
        }
        Ok(true)
    }
}

/// A block as it was read.
#[derive(Default)]
struct Block {
    last: bool,
    kind: u8,
    /// The bits before its length, and its length, if its content is not compressed.
    stored: Option<(u8, u16)>,
    tables: Vec<u8>,
    tokens: Vec<Token>,
}

impl Block {
    fn read(reader: &mut BitReader) -> Result<Self, NoStream> {
        let mut block = Self { last: reader.bits(1)? == 1, kind: reader.bits(2)? as u8, ..Self::default() };
        let (literals, distances) = match block.kind {
            STORED => {
                let filling = reader.align()?;
                let (length, inverse) = (reader.bits(16)? as u16, reader.bits(16)? as u16);
                if length != !inverse {
                    return Err(NoStream);
                }
                reader.skip(length.into())?;
                block.stored = Some((filling, length));
                return Ok(block);
            }
            FIXED => fixed(),
            TABLES => tables(reader, &mut block.tables)?,
            _ => return Err(NoStream),
        };
        block.tokens = tokens(reader, &Decoder::new(&literals)?, &Decoder::new(&distances)?)?;
        Ok(block)
    }

    /// Writes it down; false if the content is another.
    fn describe(&self, source: &mut Source, choices: &mut Vec<u8>) -> Result<bool, RecipeError> {
        let last = if self.last { LAST } else { 0 };
        if let Some((filling, length)) = self.stored {
            choices.extend([self.kind | last, filling]);
            choices.extend(length.to_le_bytes());
            return Ok(source.fill(length.into())? && source.guess.pass(length.into()));
        }
        let head = choices.len();
        choices.push(self.kind | last);
        write(choices, self.tokens.len() as u64);
        let (mut right, mut content) = (0u64, Vec::new());
        for &token in &self.tokens {
            if !source.fill(AHEAD)? || source.guess.ahead().is_empty() {
                return Ok(false);
            }
            if source.guess.token() == token {
                right += 1;
            } else {
                write(choices, std::mem::take(&mut right));
                let (length, distance) = match token {
                    Token::Literal => (0, 0),
                    Token::Match { length, distance } => ((length - 3) as u8, distance),
                };
                choices.push(length);
                choices.extend(distance.to_le_bytes());
            }
            // Only of literals it is asked what they are.
            content.push(source.guess.ahead()[0]);
            if !source.guess.take(token) {
                return Ok(false);
            }
        }
        write(choices, right);
        if self.kind == TABLES {
            let (literals, distances) = often(&self.tokens, &content);
            if tree::header(&literals, &distances) == self.tables {
                choices[head] |= BY_ZLIB;
            } else {
                choices.extend(&self.tables);
            }
        }
        Ok(true)
    }
}

/// The tables of a block, as they are sent.
fn tables(reader: &mut BitReader, choices: &mut Vec<u8>) -> Result<(Vec<u8>, Vec<u8>), NoStream> {
    let counts = [reader.bits(5)? as u8, reader.bits(5)? as u8, reader.bits(4)? as u8];
    choices.extend(counts);
    let mut short = [0; 19];
    for &at in ORDER.iter().take(usize::from(counts[2]) + 4) {
        short[at] = reader.bits(3)? as u8;
        choices.push(short[at]);
    }
    let decoder = Decoder::new(&short)?;
    let mut lengths = Lengths::of(&counts);
    while !lengths.is_full() {
        let symbol = reader.symbol(&decoder)? as u8;
        choices.push(symbol);
        let more = match Lengths::bits(symbol) {
            0 => 0,
            bits => {
                let more = reader.bits(bits)? as u8;
                choices.push(more);
                more
            }
        };
        lengths.add(symbol, more).ok_or(NoStream)?;
    }
    Ok(lengths.split())
}

fn tokens(reader: &mut BitReader, literals: &Decoder, distances: &Decoder) -> Result<Vec<Token>, NoStream> {
    let mut tokens = Vec::new();
    loop {
        let symbol = usize::from(reader.symbol(literals)?);
        if symbol == STOP {
            return Ok(tokens);
        }
        if tokens.len() == MOST_TOKENS {
            return Err(NoStream);
        }
        if symbol < STOP {
            tokens.push(Token::Literal);
            continue;
        }
        let (base, bits) = *LENGTHS.get(symbol - FIRST_LENGTH).ok_or(NoStream)?;
        let length = base + reader.bits(bits.into())? as u16;
        // 258 has two names, and only the usual one is known here.
        if length == 258 && bits > 0 {
            return Err(NoStream);
        }
        let (base, bits) = *DISTANCES.get(usize::from(reader.symbol(distances)?)).ok_or(NoStream)?;
        let distance = base + reader.bits(bits.into())? as u16;
        tokens.push(Token::Match { length, distance });
    }
}
