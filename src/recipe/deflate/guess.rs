//! What an encoder of zlib's kind would choose next.
//!
//! It need not be right, only the same for who learns and who compresses again: what was chosen otherwise is told.

use super::Token;

/// The longest match.
const LONGEST: u32 = 258;
/// As far as a match may be away; and one of three bytes.
const FAR: u32 = 32_768 - 262;
const FAR_FOR_THREE: u32 = 4096;
const RING: u32 = 32_768;
/// Places are found by 15 bits of a hash. That several seeds share one matters: they count as tries.
const HASHES: usize = 1 << 15;
/// So much of what comes has to be known, unless it is all.
pub(super) const AHEAD: usize = 2 * LONGEST as usize + 8;
/// Content that is past is let go of in pieces of this length.
const PAST: usize = 256 << 10;

/// How an encoder searches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    /// Bytes that are looked up.
    seed: u32,
    /// A match so long is good enough to search less for a better one,
    good: u32,
    /// and so long not to search for one a byte later. 0: it never does.
    lazy: u32,
    /// Nothing longer is searched for.
    nice: u32,
    /// Places that are tried.
    chain: u32,
    /// Without searching a byte later: the content of longer matches is not looked up.
    fills: u32,
}

/// The rules that are tried: those of zlib's levels, by how often they are met, for seeds of zlib itself and of its
/// faster kin.
pub(super) fn known() -> Vec<Rules> {
    let lazy = [
        (8, 16, 128, 128),
        (32, 258, 258, 4096),
        (32, 128, 258, 1024),
        (8, 32, 128, 256),
        (8, 16, 32, 32),
        (4, 4, 16, 16),
    ];
    let greedy = [(6, 32, 32), (5, 16, 8), (4, 8, 4)];
    let lazy =
        lazy.map(|(good, lazy, nice, chain)| Rules { seed: 0, good, lazy, nice, chain, fills: LONGEST });
    let greedy = greedy.map(|(fills, nice, chain)| Rules { seed: 0, good: 4, lazy: 0, nice, chain, fills });
    let all = lazy.into_iter().chain(greedy);
    all.flat_map(|rules| [3, 4].map(|seed| Rules { seed, ..rules })).collect()
}

/// A match: how long, and how far away.
type Found = Option<(u32, u32)>;

/// Follows the content, token by token.
pub(super) struct Guess {
    rules: Rules,
    data: Vec<u8>,
    /// Where `data` begins in the content, where the next token begins, and up to where content can be found.
    base: u32,
    at: u32,
    filled: u32,
    /// The last place of each hash, and the one before each place; one more than it is, 0: none.
    head: Box<[u32; HASHES]>,
    before: Box<[u16; RING as usize]>,
    /// What was found for the next token when the one before it was guessed.
    looked: Option<Found>,
}

impl Guess {
    pub(super) fn new(rules: Rules) -> Self {
        let (head, before) = (Box::new([0; HASHES]), Box::new([0; RING as usize]));
        Self { rules, data: Vec::new(), base: 0, at: 0, filled: 0, head, before, looked: None }
    }

    /// More content. False: it is more than can be followed.
    pub(super) fn feed(&mut self, content: &[u8]) -> bool {
        let past = (self.at - self.base).saturating_sub(RING) as usize;
        if past >= PAST {
            self.data.drain(..past);
            self.base += past as u32;
        }
        self.data.extend_from_slice(content);
        u64::from(self.base) + self.data.len() as u64 <= u64::from(u32::MAX / 2)
    }

    /// Content that is known from the next token on.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.data[(self.at - self.base) as usize..]
    }

    /// What is likely chosen next. There is content ahead.
    pub(super) fn token(&mut self) -> Token {
        let found = match self.looked.take() {
            Some(found) => found,
            None => self.find(self.at, 2),
        };
        let Some((length, distance)) = found else { return Token::Literal };
        let token = Token::Match { length: length as u16, distance: distance as u16 };
        if length >= self.rules.lazy {
            return token;
        }
        let later = self.find(self.at + 1, length);
        if later.is_none() {
            return token;
        }
        self.looked = Some(later);
        Token::Literal
    }

    /// The next token is this one. False: there is not so much content.
    pub(super) fn take(&mut self, token: Token) -> bool {
        match token {
            Token::Literal => self.skip(1),
            Token::Match { length, .. } => {
                self.looked = None;
                let (at, length) = (self.at, u32::from(length));
                let fits = self.skip(length as usize);
                if self.rules.lazy == 0 && length > self.rules.fills {
                    self.fill(at + 1);
                    self.filled = self.at;
                }
                fits
            }
        }
    }

    /// Content without tokens.
    pub(super) fn pass(&mut self, length: usize) -> bool {
        self.looked = None;
        self.skip(length)
    }

    fn skip(&mut self, length: usize) -> bool {
        let fits = length <= self.ahead().len();
        self.at += length.min(self.ahead().len()) as u32;
        fits
    }

    fn hash(&self, at: u32) -> Option<usize> {
        let bytes = &self.data[(at - self.base) as usize..];
        if self.rules.seed == 3 {
            let &[a, b, c, ..] = bytes else { return None };
            // As zlib does, so that a try is a try.
            return Some((usize::from(a) << 10 ^ usize::from(b) << 5 ^ usize::from(c)) % HASHES);
        }
        let word = bytes.first_chunk().map(|word| u32::from_le_bytes(*word))?;
        Some((word.wrapping_mul(66_521).wrapping_add(66_521) >> 16) as usize % HASHES)
    }

    /// Makes content up to there known.
    fn fill(&mut self, end: u32) {
        for at in self.filled.max(self.base)..end {
            let Some(hash) = self.hash(at) else { break };
            let last = std::mem::replace(&mut self.head[hash], at + 1);
            let back = if last == 0 { 0 } else { at + 1 - last };
            self.before[(at % RING) as usize] = if back < RING { back as u16 } else { 0 };
        }
        self.filled = self.filled.max(end);
    }

    /// The first of the longest matches that are longer than this.
    fn find(&mut self, at: u32, length: u32) -> Found {
        self.fill(at);
        let mut next = self.head[self.hash(at)?];
        let (data, here) = (&self.data[..], (at - self.base) as usize);
        let most = (data.len() - here).min(LONGEST as usize);
        let mut chain = if length >= self.rules.good { self.rules.chain >> 2 } else { self.rules.chain };
        let nice = (self.rules.nice as usize).min(most);
        let (mut best, mut found) = (length as usize, None);
        if best >= most {
            return None;
        }
        let mut end = two(data, here + best - 1);
        // The very first byte has no place that could be written down.
        while next > 1 && chain > 0 {
            let place = next - 1;
            if at - place > FAR || place < self.base {
                break;
            }
            let there = (place - self.base) as usize;
            // Most are told apart where they would have to be longer.
            if two(data, there + best - 1) == end {
                let alike = alike(data, here, there, most);
                if alike > best {
                    (best, found) = (alike, Some((alike as u32, at - place)));
                    if alike >= nice {
                        break;
                    }
                    end = two(data, here + best - 1);
                }
            }
            chain -= 1;
            let back = u32::from(self.before[(place % RING) as usize]);
            if back == 0 || back > place {
                break;
            }
            next -= back;
        }
        found.filter(|&(length, distance)| self.rules.lazy == 0 || length > 3 || distance <= FAR_FOR_THREE)
    }
}

fn two(data: &[u8], at: usize) -> u16 {
    data[at..].first_chunk().map_or(0, |two| u16::from_le_bytes(*two))
}

/// How many bytes are the same from two places on, up to so many.
fn alike(data: &[u8], here: usize, there: usize, most: usize) -> usize {
    let eight = |at: usize| data[at..].first_chunk().map_or(0, |eight| u64::from_le_bytes(*eight));
    let mut same = 0;
    while same + 8 <= most {
        let differs = eight(here + same) ^ eight(there + same);
        if differs != 0 {
            return same + differs.trailing_zeros() as usize / 8;
        }
        same += 8;
    }
    let rest = data[here + same..here + most].iter().zip(&data[there + same..]);
    same + rest.take_while(|(a, b)| a == b).count()
}
