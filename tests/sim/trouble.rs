//! What goes wrong in a run: when it is drawn, and what it may cost.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use crate::world::{Event, MS, World};

const SECOND: Duration = Duration::from_secs(1);

/// What goes wrong in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing; and all nodes may start in the same instant.
    None,
    /// Control messages are lost, doubled and overtake each other.
    Messages,
    /// Nodes are killed, and some come back with what they had stored.
    Kills,
    /// The site is cut in two and healed.
    Partition,
    /// The WAN of single nodes fails, or of all for a while.
    Wan,
    /// A node hands out wrong bytes.
    Liar,
    /// Clients come and go.
    Clients,
    /// Nodes stand still for seconds, and go on as if nothing had been.
    Hang,
    /// The WAN of a node slows to a crawl.
    Crawl,
    /// A node's disk fills.
    Full,
    /// A machine is carried away in mid-transfer, and comes back with another address.
    Laptop,
    /// Twenty machines are switched on in the same second, and all ask at once.
    Storm,
    /// One node has a slow LAN.
    Slow,
    /// Some nodes cannot get through to each other, and both to all others.
    Blind,
    /// Clocks differ, and run at different speeds.
    Clocks,
    /// All machines are guests of one that is too small for them, and all ask at once.
    Cramped,
}

impl Trouble {
    pub const ALL: [Self; 16] = [
        Self::None,
        Self::Messages,
        Self::Kills,
        Self::Partition,
        Self::Wan,
        Self::Liar,
        Self::Clients,
        Self::Hang,
        Self::Crawl,
        Self::Full,
        Self::Laptop,
        Self::Storm,
        Self::Slow,
        Self::Blind,
        Self::Clocks,
        Self::Cramped,
    ];

    /// What is tried on sites that are larger than a mesh.
    pub const LARGE: [Self; 9] = [
        Self::None,
        Self::Messages,
        Self::Kills,
        Self::Partition,
        Self::Wan,
        Self::Liar,
        Self::Clients,
        Self::Hang,
        Self::Cramped,
    ];

    /// How many nodes, and how many chunks.
    pub fn size(self, rng: &mut StdRng) -> (usize, usize) {
        let count = if rng.random_bool(0.1) { rng.random_range(2..=50) } else { rng.random_range(2..=10) };
        let chunks = if rng.random_bool(0.2) { 1 } else { rng.random_range(2..120) };
        match self {
            Self::Storm => (20, chunks),
            Self::Cramped => (rng.random_range(30..=48), chunks),
            // Long enough that a crawl shows.
            Self::Crawl => (count.min(6), rng.random_range(350..500)),
            Self::Hang => (count, chunks * 4),
            _ => (count, chunks),
        }
    }

    /// How much slower than usual the WAN is: where a run has to be long, time is cheaper than chunks.
    pub fn slowness(self) -> u32 {
        if self == Self::Crawl { 3 } else { 1 }
    }

    /// What a node was told is never out of date for long.
    pub fn keeps_everybody_informed(self) -> bool {
        matches!(
            self,
            Self::None | Self::Kills | Self::Clients | Self::Storm | Self::Slow | Self::Clocks | Self::Full
        )
    }
}

impl World {
    /// Draws who starts when, who asks when, and what goes wrong.
    pub(crate) fn plan(&mut self) {
        let large = self.is_large();
        if self.trouble == Trouble::Cramped {
            self.processor.slowness = self.rng.random_range(1..=4);
        }
        let storm = matches!(self.trouble, Trouble::Storm | Trouble::Crawl);
        let spread = if storm {
            1000
        } else if self.rng.random_bool(0.5) {
            1
        } else {
            3000
        };
        let asking = if storm { self.nodes.len() } else { self.rng.random_range(1..=self.nodes.len()) };
        for node in 0..self.nodes.len() {
            let start = self.random_ms(0..spread);
            self.at(start, Event::Start(node));
            if self.trouble == Trouble::Cramped {
                // All have met when it begins.
                self.nodes[node].asks = true;
                self.at(10 * SECOND, Event::Want(node));
                continue;
            }
            if node < asking {
                self.nodes[node].asks = true;
                let ask = if storm || self.rng.random_bool(0.5) { MS } else { self.random_ms(1..4000) };
                self.at(start + ask, Event::Want(node));
            }
        }
        if !large && self.rng.random_bool(0.2) {
            for _ in 0..self.rng.random_range(1..6) {
                let when = self.random_ms(0..1000 + 10 * self.report.chunks);
                let node = self.rng.random_range(0..self.nodes.len());
                let weight = [0, 1, 10, 25, 100, 400][self.rng.random_range(0..6)];
                self.at(when, Event::Weigh(node, weight));
            }
        }
        // Where the WAN of every node crawls, there is nothing to be done.
        let most = if self.trouble == Trouble::Crawl { 1 } else { 2 };
        for _ in 0..self.rng.random_range(1..=most) {
            self.draw();
        }
    }

    fn draw(&mut self) {
        let length = 1000 + 10 * self.report.chunks;
        let when = self.random_ms(300..length + 2000);
        let node = self.rng.random_range(0..self.nodes.len());
        match self.trouble {
            Trouble::None | Trouble::Messages | Trouble::Storm => {}
            Trouble::Cramped if self.rng.random_bool(0.7) => {}
            Trouble::Cramped => {
                self.nodes[node].befallen = true;
                self.at(10 * SECOND + when, Event::Kill(node));
            }
            Trouble::Kills => {
                self.nodes[node].befallen = true;
                self.at(when, Event::Kill(node));
                if self.rng.random_bool(0.7) {
                    let back = when + self.random_ms(200..5000);
                    self.at(back, Event::Start(node));
                    self.at(back + MS, Event::Want(node));
                }
            }
            Trouble::Partition => {
                let side = (0..self.nodes.len()).filter(|_| self.rng.random_bool(0.5)).collect();
                self.at(when, Event::Split(side));
                let heal = when + self.random_ms(100..12_000);
                self.at(heal, Event::Heal);
            }
            Trouble::Wan => {
                let all = self.rng.random_bool(0.4);
                let cut = if all { (0..self.nodes.len()).collect() } else { vec![node] };
                self.at(when, Event::WanCut(cut));
                let outage = self.random_ms(500..20_000);
                self.outage += outage;
                self.at(when + outage, Event::WanHeal);
            }
            Trouble::Liar => self.nodes[node].liar = true,
            Trouble::Clients => {
                self.at(when, Event::Unwant(node));
                let again = when + self.random_ms(1..3000);
                self.at(again, Event::Want(node));
            }
            Trouble::Hang => {
                self.nodes[node].befallen = true;
                self.at(when, Event::Freeze(node));
                let thaw = when + self.random_ms(300..12_000);
                self.at(thaw, Event::Thaw(node));
            }
            Trouble::Crawl => {
                // From the first byte on, where nobody knows better yet; or after a good start.
                let (when, times) = match self.rng.random_bool(0.3) {
                    true => (Duration::ZERO, 60),
                    false => (self.random_ms(5000..9000), 20),
                };
                self.at(when, Event::Crawl(node, times));
            }
            Trouble::Full => {
                self.nodes[node].befallen = true;
                self.at(when, Event::Fill(node));
            }
            Trouble::Laptop => {
                self.nodes[node].befallen = true;
                self.at(when, Event::Leave(node));
                let back = when + self.random_ms(500..8000);
                self.at(back, Event::Return(node));
            }
            Trouble::Slow => self.nodes[node].slow = true,
            Trouble::Blind => self.blind(),
            Trouble::Clocks => {
                for node in 0..self.nodes.len() {
                    self.nodes[node].ahead = self.random_ms(0..7_200_000);
                    self.nodes[node].drift = self.rng.random_range(0.95..1.05);
                }
            }
        }
    }

    /// A tenth of all pairs cannot get through to each other.
    fn blind(&mut self) {
        for a in 0..self.nodes.len() {
            for b in 0..a {
                if self.rng.random_bool(0.1) {
                    self.nodes[a].blind_to.insert(b);
                    self.nodes[b].blind_to.insert(a);
                }
            }
        }
    }

    /// Chunks that may cross again, by what goes wrong: what died with a node, what one lead has
    /// under way, what each side of a cut pulled, what a liar spoilt. A message lost at the wrong
    /// moment (an answer to the lead's question, twice) may cost all that its sender alone holds.
    pub(crate) fn may_repeat(&self) -> u64 {
        let (under_way, chunks) = (33, self.report.chunks);
        match self.trouble {
            // While a large site forms, a lead and a hub may not see each other yet: once in a thousand.
            Trouble::None | Trouble::Clients if self.is_large() => under_way,
            Trouble::None | Trouble::Clients | Trouble::Storm | Trouble::Slow | Trouble::Clocks => 0,
            Trouble::Kills => self.died,
            Trouble::Partition => ((1 << self.report.partitions) - 1) * chunks,
            Trouble::Liar => 2 * chunks,
            // Four who see each other later or never, each for itself.
            Trouble::Blind => 3 * chunks,
            Trouble::Messages => (2 * under_way).max(chunks),
            Trouble::Wan | Trouble::Crawl | Trouble::Full => 2 * under_way,
            Trouble::Cramped => self.died + under_way,
            // What only the one that is gone holds is nobody's while it is.
            Trouble::Hang | Trouble::Laptop => self.died + 2 * under_way,
        }
    }

    /// How long a client of a node that nothing has befallen may wait for all of its blob: as long
    /// as a direct download, and a delay that depends on what befell the others.
    pub(crate) fn may_wait(&self) -> Duration {
        let direct = 150 * MS + 9 * MS * self.report.chunks as u32 * self.trouble.slowness();
        let (finds_its_site, takeover) = (4 * SECOND, 5 * SECOND);
        let delay = match self.trouble {
            Trouble::None | Trouble::Clocks => SECOND,
            Trouble::Clients | Trouble::Full => 2 * SECOND,
            Trouble::Storm => 2 * SECOND,
            Trouble::Liar | Trouble::Blind => 5 * SECOND,
            Trouble::Messages => 10 * SECOND,
            Trouble::Slow => 2 * SECOND + 40 * MS * self.report.chunks as u32,
            Trouble::Kills | Trouble::Hang | Trouble::Laptop | Trouble::Partition => 2 * takeover,
            Trouble::Crawl => 3 * (10 * SECOND + takeover),
            Trouble::Wan => self.outage + 2 * takeover,
            Trouble::Cramped => 4 * self.processor.work(self.report.nodes, self.report.chunks),
        };
        let forms = if self.is_large() { SECOND } else { Duration::ZERO };
        direct + finds_its_site + forms + delay
    }
}
