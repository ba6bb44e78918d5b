//! The table: the few figures that a grouping is looked at for, in the room that there is.

use std::io::IsTerminal;

use super::super::escape;
use super::super::hosts::Hosts;
use super::bar::Ink;
use super::{word, words};
use crate::core::bitrate::Size;
use crate::core::ledger::Totals;
use crate::node::report::{About, By, Savings};

/// Names are cut no shorter, and bars are not drawn with less.
const SHORTEST_NAME: usize = 16;
const SHORTEST_BAR: usize = 10;
/// Longer bars say no more.
const LONGEST_BAR: usize = 60;
const GAP: usize = 2;

/// What the table is written on.
#[derive(Debug)]
pub(super) struct Paper {
    /// Characters in a line; `None` where lines may be as long as they like.
    pub(super) width: Option<usize>,
    pub(super) ink: Ink,
}

impl Paper {
    /// Standard output: bars for people only, and in colour only where colour is wanted.
    pub(super) fn of_stdout() -> Self {
        if !std::io::stdout().is_terminal() {
            return Self { width: None, ink: Ink::None };
        }
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
        let locale = locale.to_ascii_lowercase();
        let utf8 = locale.contains("utf-8") || locale.contains("utf8");
        let plain = set("NO_COLOR").is_some() || set("TERM").is_none_or(|term| term == "dumb") || !utf8;
        let width = console::Term::stdout().size_checked().map_or(80, |(_, columns)| usize::from(columns));
        Self { width: Some(width), ink: if plain { Ink::Ascii } else { Ink::Blocks } }
    }
}

/// A column of figures.
type Column = (&'static str, fn(&Totals) -> String);

const SOURCES: [Column; 6] = [
    ("DELIVERED", |it| Size(it.delivered).to_string()),
    ("WAN", |it| Size(it.wan_wire).to_string()),
    ("PEERS", |it| Size(it.peer).to_string()),
    ("DIRECT", |it| Size(it.direct).to_string()),
    ("SAVED", |it| words::share(it.saved_of_delivered(), it.delivered).unwrap_or_else(|| "-".into())),
    ("LOCAL", |it| Size(it.local).to_string()),
];
/// Where something came by recipe.
const WITH_RECIPES: [Column; 7] = [
    SOURCES[0],
    SOURCES[1],
    SOURCES[2],
    SOURCES[3],
    SOURCES[4],
    ("BY RECIPE", |it| words::signed(it.saved_by_recipe())),
    SOURCES[5],
];
const REASONS: [Column; 3] = [
    ("CONTENT", |it| Size(it.wan.saturating_add(it.preloaded_wan)).to_string()),
    ("ON THE WIRE", |it| Size(it.wan_wire).to_string()),
    ("DUPLICATES", |it| Size(it.wan_duplicate).to_string()),
];
const PEERS: [Column; 2] = [
    ("RECEIVED", |it| Size(it.peer.saturating_add(it.preloaded_peer)).to_string()),
    ("SERVED", |it| Size(it.served).to_string()),
];

/// What bars show of a row: parts from the WAN, from peers and from the local cache.
fn parts(totals: &Totals, by: By) -> [u64; 3] {
    match by {
        By::Reason => [totals.wan_wire, 0, 0],
        By::Peer => [0, totals.peer.saturating_add(totals.preloaded_peer), totals.served],
        _ => [totals.wan, totals.peer, totals.local],
    }
}

fn sum(parts: [u64; 3]) -> u64 {
    parts.into_iter().fold(0, u64::saturating_add)
}

/// The table with its sum, in the order of the rows; the largest first, where rows have no order in time.
pub(super) fn table(savings: &Savings, by: By, hosts: &Hosts, paper: &Paper) -> String {
    let columns: &[Column] = match by {
        By::Reason => &REASONS,
        By::Peer => &PEERS,
        _ if savings.totals.rebuilt > 0 => &WITH_RECIPES,
        _ => &SOURCES,
    };
    let name = |about: &About| match about {
        About::Node(node) | About::Peer(node) => escape::terminal(&hosts.name(node)),
        about => escape::terminal(about.as_str()),
    };
    let total = match by {
        // The site's totals are those of all reasons; what peers gave and took is not among them.
        By::Reason => reasons_total(savings),
        _ => savings.totals,
    };
    let mut rows: Vec<_> = savings.rows.iter().map(|row| (name(&row.about), row.totals)).collect();
    if !matches!(by, By::Hour | By::Day) {
        rows.sort_by_key(|(_, totals)| std::cmp::Reverse((sum(parts(totals, by)), totals.wan_wire)));
    }
    let scale = Scale::of(&rows, by);
    rows.push(("total".to_owned(), total));
    let head = (word(&by).to_uppercase(), columns.iter().map(|(head, _)| (*head).to_owned()).collect());
    let cells = rows
        .iter()
        .map(|(name, it)| (name.clone(), columns.iter().map(|(_, cell)| cell(it)).collect::<Vec<_>>()));
    let mut lines: Vec<(String, Vec<String>)> = std::iter::once(head).chain(cells).collect();
    let fit = Fit::new(&mut lines, paper);
    let last = lines.len() - 1;
    let draw = |(at, (name, cells)): (usize, &(String, Vec<String>))| {
        let bar = match at {
            0 => String::new(),
            at if at == last && scale.over_time() => String::new(),
            at => scale.bar(&rows[at - 1].1, by, paper.ink, fit.bar),
        };
        fit.line(name, cells, &bar)
    };
    let mut text = lines.iter().enumerate().map(draw).collect::<Vec<_>>().join("\n");
    if fit.bar > 0 && !matches!(by, By::Reason | By::Peer) {
        text = format!("{text}\n\n{}, as shares of what clients received", paper.ink.legend());
    }
    text
}

/// By reason `wan` stands for all content, waited for or not.
fn reasons_total(savings: &Savings) -> Totals {
    let mut total = Totals::default();
    savings.rows.iter().for_each(|row| total.add(&row.totals));
    total
}

/// What the full length of a bar stands for.
enum Scale {
    /// The row itself: bars show shares.
    Row,
    /// The largest row: bars show amounts.
    Largest(u64),
}

impl Scale {
    fn of(rows: &[(String, Totals)], by: By) -> Self {
        match by {
            By::Hour | By::Day | By::Reason | By::Peer => {
                Self::Largest(rows.iter().map(|(_, totals)| sum(parts(totals, by))).max().unwrap_or(0))
            }
            _ => Self::Row,
        }
    }

    fn over_time(&self) -> bool {
        matches!(self, Self::Largest(_))
    }

    fn bar(&self, totals: &Totals, by: By, ink: Ink, width: usize) -> String {
        let parts = parts(totals, by);
        let whole = match self {
            Self::Row => sum(parts),
            Self::Largest(largest) => *largest,
        };
        ink.bar(parts, whole, width)
    }
}

/// How wide everything is.
struct Fit {
    name: usize,
    cells: Vec<usize>,
    bar: usize,
}

impl Fit {
    /// Shares out a line. Names are cut before bars are given up, and where that is not enough, the last
    /// column is: of delivered, what is local is seen in the bar.
    fn new(lines: &mut [(String, Vec<String>)], paper: &Paper) -> Self {
        let measure = console::measure_text_width;
        let longest = lines.iter().map(|(name, _)| measure(name)).max().unwrap_or(0);
        let widths = |lines: &[(String, Vec<String>)]| -> Vec<usize> {
            let columns = lines.first().map_or(0, |(_, cells)| cells.len());
            let width =
                |at: usize| lines.iter().filter_map(|(_, cells)| cells.get(at)).map(|it| measure(it)).max();
            (0..columns).map(|at| width(at).unwrap_or(0)).collect()
        };
        let mut cells = widths(lines);
        let Some(width) = paper.width else { return Self { name: longest, cells, bar: 0 } };
        let used = |cells: &[usize]| cells.iter().map(|cell| cell + GAP).sum::<usize>();
        let wanted = longest.min(SHORTEST_NAME) + if paper.ink == Ink::None { 0 } else { GAP + SHORTEST_BAR };
        if cells.len() > 5 && used(&cells) + wanted > width {
            lines.iter_mut().for_each(|(_, cells)| cells.truncate(5));
            cells = widths(lines);
        }
        let room = width.saturating_sub(used(&cells));
        let draws = paper.ink != Ink::None && room >= longest.min(SHORTEST_NAME) + GAP + SHORTEST_BAR;
        let name = longest.min(room.saturating_sub(if draws { GAP + SHORTEST_BAR } else { 0 })).max(1);
        let bar = if draws { room.saturating_sub(name + GAP).min(LONGEST_BAR) } else { 0 };
        Self { name, cells, bar }
    }

    fn line(&self, name: &str, cells: &[String], bar: &str) -> String {
        let name = console::truncate_str(name, self.name, "…");
        let mut line = console::pad_str(&name, self.name, console::Alignment::Left, None).into_owned();
        for (cell, width) in cells.iter().zip(&self.cells) {
            line.push_str(&format!("{:GAP$}{cell:>width$}", ""));
        }
        format!("{line}  {bar}").trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::report::SavingsRow;

    fn savings() -> Savings {
        let firefox = Totals {
            delivered: 400_000_000,
            wan: 100_000_000,
            peer: 200_000_000,
            local: 100_000_000,
            direct: 500_000_000,
            wan_wire: 60_000_000,
            ..Totals::default()
        };
        let lost = Totals { delivered: 1000, wan: 1000, direct: 1000, wan_wire: 2500, ..Totals::default() };
        let mut totals = firefox;
        totals.add(&lost);
        let row = |name: &str, totals| SavingsRow { about: About::Package(name.into()), totals };
        let rows = vec![row("a-package-whose-name-is-long@1.0", lost), row("firefox@128", firefox)];
        Savings { totals, rows, ..Savings::default() }
    }

    fn drawn(by: By, width: Option<usize>, ink: Ink) -> String {
        table(&savings(), by, &Hosts::default(), &Paper { width, ink })
    }

    #[test]
    fn without_a_terminal_everything_is_in_full() {
        let right = "\
PACKAGE                           DELIVERED      WAN     PEERS    DIRECT      SAVED     LOCAL
firefox@128                        400.0 MB  60.0 MB  200.0 MB  500.0 MB     85.0 %  100.0 MB
a-package-whose-name-is-long@1.0     1.0 kB   2.5 kB       0 B    1.0 kB   -150.0 %       0 B
total                              400.0 MB  60.0 MB  200.0 MB  500.0 MB     85.0 %  100.0 MB";
        let trim = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let table = drawn(By::Package, None, Ink::None);
        assert_eq!(trim(&table), trim(right), "{table}");
        let lengths: Vec<_> = table.lines().map(str::len).collect();
        assert!(lengths.iter().all(|length| *length == lengths[0]), "numbers end below one another: {table}");
    }

    #[test]
    fn a_narrow_terminal_cuts_names_and_leaves_out_what_the_bar_shows() {
        let right = "\
PACKAGE             DELIVERED      WAN     PEERS    DIRECT     SAVED
firefox@128          400.0 MB  60.0 MB  200.0 MB  500.0 MB    85.0 %  ###=====..
a-package-whose-n…     1.0 kB   2.5 kB       0 B    1.0 kB  -150.0 %  ##########
total                400.0 MB  60.0 MB  200.0 MB  500.0 MB    85.0 %  ###=====..

# WAN  = peers  . local, as shares of what clients received";
        assert_eq!(drawn(By::Package, Some(80), Ink::Ascii), right);
    }

    #[test]
    fn no_line_is_longer_than_the_terminal() {
        for width in [60, 72, 80, 100, 132, 250] {
            for by in [By::Package, By::Day, By::Reason, By::Peer] {
                let text = drawn(by, Some(width), Ink::Blocks);
                let longest = text.lines().map(console::measure_text_width).max();
                assert!(longest.is_some_and(|longest| longest <= width), "{width} {by:?}:\n{text}");
            }
        }
        assert!(drawn(By::Package, Some(120), Ink::Ascii).contains("LOCAL"), "room for all");
    }

    #[test]
    fn bars_over_time_show_amounts() {
        let text = drawn(By::Day, Some(100), Ink::Ascii);
        let bars: Vec<_> = text.lines().map(|line| line.matches(['#', '=', '.']).count()).collect();
        // Dots stand in figures, too; the sum of all days has no bar.
        assert!(text.lines().nth(2).is_some_and(|line| line.contains('=')), "{text}");
        assert!(text.lines().nth(3).is_some_and(|line| !line.contains('=')), "{text} {bars:?}");
    }
}
