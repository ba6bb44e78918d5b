//! The tables that zlib sends with a block, by how often each symbol is in it.
//!
//! They follow from that alone, and so need not be told where zlib has made them. What decides between symbols that
//! are equally often, and between the ways to say the same, is what zlib does.

use super::ORDER;

/// The longest codes of symbols, and of their lengths.
const LONGEST: u8 = 15;
const LONGEST_SHORT: u8 = 7;

/// A block's tables as they are sent: three counts, the lengths of the short codes, then the lengths of all codes
/// by these, each with what is added to it.
pub(super) fn header(literals: &[u32], distances: &[u32]) -> Vec<u8> {
    let (literals, distances) = (lengths(literals, LONGEST), lengths(distances, LONGEST));
    let told = [told(&literals), told(&distances)].concat();
    let mut often = [0; 19];
    told.iter().for_each(|(symbol, _)| often[usize::from(*symbol)] += 1);
    let mut short = lengths(&often, LONGEST_SHORT);
    short.resize(19, 0);
    let count = ORDER.iter().rposition(|&at| short[at] != 0).map_or(4, |last| (last + 1).max(4));
    let mut header = vec![(literals.len() - 257) as u8, (distances.len() - 1) as u8, (count - 4) as u8];
    header.extend(ORDER.iter().take(count).map(|&at| short[at]));
    for (symbol, more) in told {
        header.push(symbol);
        header.extend(more);
    }
    header
}

/// Lengths as they are told, repetitions by themselves.
fn told(lengths: &[u8]) -> Vec<(u8, Option<u8>)> {
    let (mut told, mut before, mut count) = (Vec::new(), None, 0u8);
    let bounds = |next: Option<u8>, now: Option<u8>| match next {
        Some(0) => (138, 3),
        next if next == now => (6, 3),
        _ => (7, 4),
    };
    let (mut most, mut least) = bounds(lengths.first().copied(), None);
    for (at, &now) in lengths.iter().enumerate() {
        let next = lengths.get(at + 1).copied();
        count += 1;
        if count < most && next == Some(now) {
            continue;
        }
        if count < least {
            told.extend((0..count).map(|_| (now, None)));
        } else if now != 0 {
            if before != Some(now) {
                told.push((now, None));
                count -= 1;
            }
            told.push((16, Some(count - 3)));
        } else if count <= 10 {
            told.push((17, Some(count - 3)));
        } else {
            told.push((18, Some(count - 11)));
        }
        (count, before) = (0, Some(now));
        (most, least) = bounds(next, Some(now));
    }
    told
}

/// A heap of nodes, the rarest at the top.
struct Heap {
    often: Vec<u32>,
    depth: Vec<u32>,
    nodes: Vec<usize>,
}

impl Heap {
    fn before(&self, a: usize, b: usize) -> bool {
        (self.often[a], self.depth[a]) <= (self.often[b], self.depth[b])
    }

    /// Lets the node at this place sink to where it belongs.
    fn sink(&mut self, mut at: usize) {
        let node = self.nodes[at];
        loop {
            let mut child = 2 * at + 1;
            if child >= self.nodes.len() {
                break;
            }
            if child + 1 < self.nodes.len() && self.before(self.nodes[child + 1], self.nodes[child]) {
                child += 1;
            }
            if self.before(node, self.nodes[child]) {
                break;
            }
            self.nodes[at] = self.nodes[child];
            at = child;
        }
        self.nodes[at] = node;
    }

    /// Takes the top off.
    fn pop(&mut self) -> usize {
        let top = self.nodes.swap_remove(0);
        if !self.nodes.is_empty() {
            self.sink(0);
        }
        top
    }
}

/// The lengths of codes for symbols that are so often, up to the last one that has a code.
fn lengths(often: &[u32], longest: u8) -> Vec<u8> {
    let mut heap = Heap { often: often.to_vec(), depth: vec![0; often.len()], nodes: Vec::new() };
    heap.nodes = (0..often.len()).filter(|&symbol| often[symbol] > 0).collect();
    let mut last = heap.nodes.last().copied();
    // There are two codes at least.
    while heap.nodes.len() < 2 {
        let symbol = last.map_or(0, |last| if last < 2 { last + 1 } else { 0 });
        last = last.max(Some(symbol));
        heap.often[symbol] = 1;
        heap.nodes.push(symbol);
    }
    let count = last.map_or(1, |last| last + 1);
    (0..heap.nodes.len() / 2).rev().for_each(|at| heap.sink(at));
    // Symbols and the nodes above them, in the order in which they were joined.
    let (mut order, mut above) = (Vec::new(), vec![0; often.len()]);
    while heap.nodes.len() >= 2 {
        let (a, b) = (heap.pop(), heap.nodes[0]);
        let node = heap.often.len();
        heap.often.push(heap.often[a].saturating_add(heap.often[b]));
        heap.depth.push(heap.depth[a].max(heap.depth[b]) + 1);
        above.push(0);
        (above[a], above[b]) = (node, node);
        order.extend([a, b]);
        heap.nodes[0] = node;
        heap.sink(0);
    }
    cut(&order, &above, often.len(), count, longest)
}

/// The lengths by the tree, none longer than they may be.
fn cut(order: &[usize], above: &[usize], symbols: usize, count: usize, longest: u8) -> Vec<u8> {
    let (mut lengths, mut of_length, mut over) = (vec![0u8; above.len()], [0i32; 16], 0);
    let most = usize::from(longest);
    for &node in order.iter().rev() {
        let mut length = lengths[above[node]] + 1;
        if length > longest {
            length = longest;
            over += 1;
        }
        lengths[node] = length;
        if node < symbols {
            of_length[usize::from(length)] += 1;
        }
    }
    while over > 0 {
        let Some(shorter) = (1..most).rev().find(|&length| of_length[length] > 0) else { break };
        of_length[shorter] -= 1;
        of_length[shorter + 1] += 2;
        of_length[most] -= 1;
        over -= 2;
        if over <= 0 {
            let mut leaves = order.iter().filter(|&&node| node < symbols);
            for length in (1..=most).rev() {
                for &leaf in leaves.by_ref().take(of_length[length].max(0) as usize) {
                    lengths[leaf] = length as u8;
                }
            }
        }
    }
    lengths.truncate(count);
    lengths
}
