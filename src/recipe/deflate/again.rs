//! A stream, compressed again by what its encoder chose.

use std::io::{self, Read, Write};

use super::bits::{BitWriter, Codes, DISTANCES, LENGTHS, LONGEST};
use super::guess::{AHEAD, Guess, known};
use super::{
    BY_ZLIB, FIRST_LENGTH, FIXED, LAST, Lengths, MOST_TOKENS, ORDER, STOP, STORED, TABLES, Token,
    distance_symbol, fixed, length_symbol, often, tree,
};
use crate::recipe::RecipeError;

const CUT_OFF: RecipeError = RecipeError::Malformed("an encoder's choices end early");
const TOO_LONG: RecipeError = RecipeError::Malformed("an encoder's choices are for more content");

/// What an encoder chose, as it is told.
struct Choices<R>(R);

impl<R: Read> Choices<R> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], RecipeError> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).map_err(|_| CUT_OFF)?;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, RecipeError> {
        self.bytes().map(|[byte]| byte)
    }

    fn number(&mut self) -> Result<usize, RecipeError> {
        let mut number = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return usize::try_from(number).map_err(|_| CUT_OFF);
            }
        }
        Err(CUT_OFF)
    }

    fn is_at_end(&mut self) -> bool {
        self.0.read(&mut [0]).is_ok_and(|more| more == 0)
    }
}

/// What is being written.
enum Doing {
    /// A block begins, or the stream ends.
    Between,
    /// So many bytes are copied as they are.
    Copying(usize),
    /// Tokens of a block.
    Tokens(Block),
    /// Nothing more comes.
    Over,
}

/// A block whose tokens are not all known.
struct Block {
    head: u8,
    /// Tokens that are missing, and how many of them are guessed right before one is told.
    left: usize,
    right: usize,
    tokens: Vec<Token>,
    /// The first byte of each.
    content: Vec<u8>,
}

/// Compresses what is written to it, by an encoder's choices.
pub(in crate::recipe) struct Again<'a, R> {
    choices: Choices<R>,
    guess: Option<Guess>,
    out: BitWriter<'a>,
    doing: Doing,
    last: bool,
}

impl<'a, R: Read> Again<'a, R> {
    pub(in crate::recipe) fn new(choices: R, out: &'a mut dyn Write) -> Self {
        let mut choices = Choices(choices);
        let rules = choices.byte().ok().and_then(|number| known().get(usize::from(number)).copied());
        let (guess, out) = (rules.map(Guess::new), BitWriter::new(out));
        Self { choices, guess, out, doing: Doing::Between, last: false }
    }

    /// Writes as far as the content is known; `all` of it is there, or so much that guesses are sure.
    fn advance(&mut self, all: bool) -> Result<(), RecipeError> {
        let mut guess = self.guess.take().ok_or(RecipeError::Malformed("there are no such rules"))?;
        let wanted = if all { 1 } else { AHEAD };
        loop {
            match std::mem::replace(&mut self.doing, Doing::Over) {
                Doing::Over => break,
                Doing::Between if self.last => {
                    let filling = self.choices.byte()?;
                    self.out.align(filling);
                    break;
                }
                Doing::Between => self.doing = self.begin()?,
                Doing::Copying(0) => self.doing = Doing::Between,
                Doing::Copying(left) => {
                    let count = left.min(guess.ahead().len());
                    self.out.bytes(&guess.ahead()[..count]);
                    guess.pass(count);
                    self.doing = Doing::Copying(left - count);
                    if count == 0 {
                        break;
                    }
                }
                Doing::Tokens(block) if block.left == 0 => {
                    self.end(&block)?;
                    self.doing = Doing::Between;
                }
                Doing::Tokens(block) if guess.ahead().len() < wanted => {
                    self.doing = Doing::Tokens(block);
                    break;
                }
                Doing::Tokens(mut block) => {
                    self.token(&mut guess, &mut block)?;
                    self.doing = Doing::Tokens(block);
                }
            }
            self.out.flush(false)?;
        }
        self.guess = Some(guess);
        Ok(())
    }

    /// A block begins.
    fn begin(&mut self) -> Result<Doing, RecipeError> {
        let head = self.choices.byte()?;
        self.last = head & LAST != 0;
        let kind = head & 3;
        if kind > TABLES {
            return Err(RecipeError::Malformed("there is a block of an unknown kind"));
        }
        self.out.bits(self.last.into(), 1);
        self.out.bits(kind.into(), 2);
        if kind == STORED {
            let filling = self.choices.byte()?;
            let length = u16::from_le_bytes(self.choices.bytes()?);
            self.out.align(filling);
            self.out.bits(length.into(), 16);
            self.out.bits((!length).into(), 16);
            return Ok(Doing::Copying(length.into()));
        }
        let left = self.choices.number()?;
        if left > MOST_TOKENS {
            return Err(RecipeError::Malformed("a block has too many tokens"));
        }
        let right = self.choices.number()?;
        Ok(Doing::Tokens(Block { head, left, right, tokens: Vec::new(), content: Vec::new() }))
    }

    /// The next token, guessed or told.
    fn token(&mut self, guess: &mut Guess, block: &mut Block) -> Result<(), RecipeError> {
        let guessed = guess.token();
        let token = if block.right > 0 {
            block.right -= 1;
            guessed
        } else {
            let (length, distance) =
                (u16::from(self.choices.byte()?) + 3, u16::from_le_bytes(self.choices.bytes()?));
            block.right = self.choices.number()?;
            if distance == 0 { Token::Literal } else { Token::Match { length, distance } }
        };
        block.content.push(guess.ahead().first().copied().unwrap_or_default());
        block.tokens.push(token);
        block.left -= 1;
        if guess.take(token) { Ok(()) } else { Err(TOO_LONG) }
    }

    /// All tokens of a block are known.
    fn end(&mut self, block: &Block) -> Result<(), RecipeError> {
        let (literals, distances) = if block.head & 3 == FIXED {
            fixed()
        } else if block.head & BY_ZLIB != 0 {
            let (literals, distances) = often(&block.tokens, &block.content);
            let header = tree::header(&literals, &distances);
            tables(&mut Choices(&header[..]), &mut self.out)?
        } else {
            tables(&mut self.choices, &mut self.out)?
        };
        let (literals, distances) = (Codes::new(&literals), Codes::new(&distances));
        for (token, byte) in block.tokens.iter().zip(&block.content) {
            match *token {
                Token::Literal => self.out.symbol(&literals, (*byte).into()),
                Token::Match { length, distance } => {
                    let at = length_symbol(length);
                    self.out.symbol(&literals, FIRST_LENGTH + at);
                    self.out.bits(length.wrapping_sub(LENGTHS[at].0).into(), LENGTHS[at].1.into());
                    let at = distance_symbol(distance);
                    self.out.symbol(&distances, at);
                    self.out.bits(distance.wrapping_sub(DISTANCES[at].0).into(), DISTANCES[at].1.into());
                }
            }
            self.out.flush(false)?;
        }
        self.out.symbol(&literals, STOP);
        Ok(())
    }

    pub(in crate::recipe) fn finish(mut self) -> Result<(), RecipeError> {
        self.advance(true)?;
        let rest = self.guess.as_ref().is_none_or(|guess| !guess.ahead().is_empty());
        if !self.last || rest || !matches!(self.doing, Doing::Over) || !self.choices.is_at_end() {
            return Err(RecipeError::Malformed("a deflate stream ends early"));
        }
        Ok(self.out.flush(true)?)
    }
}

impl<R: Read> Write for Again<'_, R> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let most = bytes.len().min(64 << 10);
        let fits = self.guess.as_mut().is_some_and(|guess| guess.feed(&bytes[..most]));
        if !fits || matches!(self.doing, Doing::Over) {
            return Err(io::Error::other("a deflate stream goes on beyond its end"));
        }
        self.advance(false).map_err(io::Error::other)?;
        Ok(most)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the tables of a block as they are told, and reads them.
fn tables<R: Read>(told: &mut Choices<R>, out: &mut BitWriter) -> Result<(Vec<u8>, Vec<u8>), RecipeError> {
    let [literals, distances, short] = told.bytes()?;
    let counts = [literals & 31, distances & 31, short & 15];
    for (count, bits) in counts.iter().zip([5, 5, 4]) {
        out.bits((*count).into(), bits);
    }
    let mut short = [0; 19];
    for &at in ORDER.iter().take(usize::from(counts[2]) + 4) {
        short[at] = told.byte()? & 7;
        out.bits(short[at].into(), 3);
    }
    let codes = Codes::new(&short);
    let mut lengths = Lengths::of(&counts);
    while !lengths.is_full() {
        let symbol = told.byte()?;
        let bits = Lengths::bits(symbol);
        let more = if bits > 0 { told.byte()? & ((1 << bits) - 1) } else { 0 };
        out.symbol(&codes, symbol.into());
        out.bits(more.into(), bits);
        let fits = usize::from(symbol) <= LONGEST + 3;
        lengths.add(symbol, more).filter(|()| fits).ok_or(CUT_OFF)?;
    }
    Ok(lengths.split())
}
