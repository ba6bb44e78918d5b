//! Bars of characters.

/// What bars are drawn with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
    /// Nothing is drawn.
    None,
    /// For terminals that know no more, or that are to show no more.
    Ascii,
    /// Shades of blocks in colours: the shades alone tell the parts apart, too.
    Blocks,
}

/// The characters for the WAN, peers and the local cache, and their colours (SGR). The colours are those of
/// the terminal's own palette, readable on light and dark.
const BLOCKS: [(char, &str); 3] = [('█', "33"), ('▓', "36"), ('░', "90")];
const ASCII: [char; 3] = ['#', '=', '.'];

impl Ink {
    /// A bar of parts. `whole` is as long as `width`.
    pub(super) fn bar(self, parts: [u64; 3], whole: u64, width: usize) -> String {
        let cells = cells(parts, whole, width);
        let part = |(at, count): (usize, usize)| self.part(at, count);
        cells.into_iter().enumerate().map(part).collect()
    }

    /// What the characters mean.
    pub(super) fn legend(self) -> String {
        let entry = |(at, name): (usize, &str)| format!("{} {name}", self.part(at, 1));
        ["WAN", "peers", "local"].into_iter().enumerate().map(entry).collect::<Vec<_>>().join("  ")
    }

    fn part(self, at: usize, count: usize) -> String {
        match self {
            _ if count == 0 => String::new(),
            Self::None => String::new(),
            Self::Ascii => ASCII[at].to_string().repeat(count),
            Self::Blocks => {
                let (block, colour) = BLOCKS[at];
                format!("\u{1b}[{colour}m{}\u{1b}[0m", block.to_string().repeat(count))
            }
        }
    }
}

/// How many characters each part takes. The ends of the parts are rounded, not their lengths, so that they
/// add up to the bar; what is not nothing shows at least once.
fn cells(parts: [u64; 3], whole: u64, width: usize) -> [usize; 3] {
    let sum: u128 = parts.iter().map(|part| u128::from(*part)).sum();
    let whole = u128::from(whole).max(sum);
    if sum == 0 || width == 0 {
        return [0; 3];
    }
    let (mut end, mut before) = (0u128, 0usize);
    let mut cells = parts.map(|part| {
        end += u128::from(part);
        let at = usize::try_from((2 * end * width as u128 + whole) / (2 * whole)).unwrap_or(width);
        let length = at - before;
        before = at;
        length
    });
    if cells == [0; 3] {
        let longest = (0..3).max_by_key(|at| parts[*at]).unwrap_or(0);
        cells[longest] = 1;
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_add_up() {
        assert_eq!(cells([1, 1, 1], 3, 10), [3, 4, 3]);
        assert_eq!(cells([1, 1, 1], 6, 10), [2, 1, 2]);
        assert_eq!(cells([0, 5, 0], 1_000_000, 10), [0, 1, 0], "a little is not nothing");
        assert_eq!(cells([0, 0, 0], 10, 10), [0; 3]);
        assert_eq!(cells([u64::MAX, u64::MAX, 0], u64::MAX, 8), [4, 4, 0]);
        for (a, b, c) in [(1, 2, 3), (7, 0, 93), (333, 333, 334), (1, 1, 998)] {
            assert_eq!(cells([a, b, c], a + b + c, 20).iter().sum::<usize>(), 20);
        }
    }

    #[test]
    fn parts_differ_without_colour() {
        assert_eq!(Ink::Ascii.bar([2, 1, 1], 4, 8), "####==..");
        assert_eq!(Ink::None.bar([2, 1, 1], 4, 8), "");
        let coloured = Ink::Blocks.bar([2, 1, 1], 4, 8);
        assert_eq!(console::measure_text_width(&coloured), 8);
        assert_eq!(console::strip_ansi_codes(&coloured), "████▓▓░░");
    }
}
