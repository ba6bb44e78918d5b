//! Which way a blob comes over the WAN: as shipped, or by one of its recipes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::offer::{Way, Work};
use crate::core::id::RecipeId;

/// A recipe has to spare this part of what it replaces, in percent: what is to gain below that is not worth
/// a machine's work.
const PAYS: u64 = 3;
/// With [`Prefer::Time`], a way may take longer by this part, in percent, if it spares bytes.
const TOLERANCE: f64 = 2.0;
/// The LAN, in bytes per second, where an older version has to be fetched from a neighbour first.
const LAN: f64 = 40e6;

/// What matters more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prefer {
    /// Few bytes over the WAN.
    #[default]
    Bytes,
    /// That a client does not wait longer than for the blob as shipped.
    Time,
}

impl std::str::FromStr for Prefer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "bytes" => Ok(Self::Bytes),
            "time" => Ok(Self::Time),
            other => Err(format!(
                "{other:?} is neither \"bytes\" (few bytes over the WAN) nor \"time\" (no longer wait than for the file as shipped)"
            )),
        }
    }
}

/// How fast this machine works, in bytes of content per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Speeds {
    /// Compresses with deflate, bit for bit as somebody else did.
    pub deflate: f64,
    /// With xz.
    pub xz: f64,
    /// With zstd.
    pub zstd: f64,
    /// Opens an older version.
    pub open: f64,
    /// Applies patches.
    pub patch: f64,
}

impl Default for Speeds {
    /// Of a slow core, until it was measured here.
    fn default() -> Self {
        Self { deflate: 20e6, xz: 2e6, zstd: 3e6, open: 60e6, patch: 150e6 }
    }
}

impl Speeds {
    /// How long so much work takes.
    pub fn rebuild(&self, work: &Work) -> Duration {
        let seconds = work.deflate as f64 / self.deflate
            + work.xz as f64 / self.xz
            + work.zstd as f64 / self.zstd
            + work.contents as f64 / self.patch;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

/// Where an older version is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On this node.
    Here,
    /// On another node of the site.
    Site,
    /// Not in the site.
    Nowhere,
}

/// What a WAN is taken to give where nothing is known of it and waiting is not wanted, in bytes per second.
const FAST: u64 = 12_500_000;

/// What is known when a blob is about to be pulled.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// What is missing of it as shipped, in bytes as they are at the origin.
    pub shipped: u64,
    /// What the WAN gives, in bytes per second, if that is known.
    pub rate: Option<u64>,
    /// How fast this machine is.
    pub speeds: Speeds,
    /// What matters more.
    pub prefer: Prefer,
}

/// One way, weighed. Times are estimates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Weighed {
    /// The recipe; none: as shipped.
    pub recipe: Option<RecipeId>,
    /// Bytes over the WAN.
    pub bytes: u64,
    /// How long it would take, in seconds; none if the WAN's rate is not known.
    pub seconds: Option<f64>,
    /// Why it cannot be gone, if it cannot.
    pub out_of_question: Option<String>,
}

/// What was weighed, and what was chosen of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// All ways, the one as shipped first, then those of the offer in its order.
    pub ways: Vec<Weighed>,
    /// Which of them is gone.
    pub chosen: usize,
}

/// Weighs the ways of an offer, each with the place of what it is against, and the blob as shipped.
pub fn choose(ways: &[(Way, Place)], facts: &Facts) -> Choice {
    let rate = facts.rate.or((facts.prefer == Prefer::Time).then_some(FAST));
    let transfer = |bytes: u64| rate.map(|rate| bytes as f64 / rate.max(1) as f64);
    let shipped = Weighed {
        recipe: None,
        bytes: facts.shipped,
        seconds: transfer(facts.shipped),
        out_of_question: None,
    };
    let weigh = |(way, place): &(Way, Place)| {
        let (_, size, contents) = way.against.unwrap_or((crate::core::id::BlobId::from_bytes([0; 32]), 0, 0));
        let fetch = if *place == Place::Site { size as f64 / LAN } else { 0.0 };
        let open = contents as f64 / facts.speeds.open;
        let rebuild = facts.speeds.rebuild(&way.work).as_secs_f64();
        // What comes is rebuilt as it comes, once the older version is open.
        let seconds = transfer(way.bytes).map(|transfer| fetch + open + transfer.max(rebuild));
        let out_of_question = match place {
            Place::Nowhere => Some("the site does not hold the version that it is against".to_owned()),
            _ if way.bytes * 100 > facts.shipped * (100 - PAYS) => Some("it spares too little".to_owned()),
            _ => None,
        };
        Weighed { recipe: Some(way.recipe), bytes: way.bytes, seconds, out_of_question }
    };
    let ways: Vec<Weighed> = std::iter::once(shipped).chain(ways.iter().map(weigh)).collect();
    let open = || ways.iter().enumerate().filter(|(_, way)| way.out_of_question.is_none());
    let fastest = open().filter_map(|(_, way)| way.seconds).fold(f64::INFINITY, f64::min);
    let in_time = |way: &Weighed| match (facts.prefer, way.seconds) {
        (Prefer::Time, Some(seconds)) => seconds <= fastest * (1.0 + TOLERANCE / 100.0),
        _ => true,
    };
    let best = open().filter(|(_, way)| in_time(way)).min_by_key(|(_, way)| way.bytes);
    let chosen = best.map_or(0, |(at, _)| at);
    Choice { ways, chosen }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::id::BlobId;

    const MB: u64 = 1_000_000;

    fn way(name: &[u8], bytes: u64, against: bool, xz: u64) -> Way {
        let against = against.then(|| (BlobId::of(b"old"), 30 * MB, 120 * MB));
        let work = Work { contents: 120 * MB, xz, ..Work::default() };
        Way { recipe: RecipeId::of(name), bytes, against, work }
    }

    fn chosen(ways: &[(Way, Place)], rate: Option<u64>, prefer: Prefer) -> usize {
        let facts = Facts { shipped: 30 * MB, rate, speeds: Speeds::default(), prefer };
        choose(ways, &facts).chosen
    }

    #[test]
    fn bytes_decide_or_time_does() {
        let ways = [
            (way(b"patch", 3 * MB, true, 120 * MB), Place::Here),
            (way(b"cold", 25 * MB, false, 0), Place::Here),
        ];
        assert_eq!(chosen(&ways, Some(6 * MB), Prefer::Bytes), 1);
        assert_eq!(chosen(&ways, Some(6 * MB), Prefer::Time), 2, "xz takes a minute");
        assert_eq!(chosen(&ways, Some(MB / 10), Prefer::Time), 1, "on a slow WAN that is fast");
        assert_eq!(chosen(&ways, None, Prefer::Time), 2, "it may be a fast one");
        assert_eq!(chosen(&ways, None, Prefer::Bytes), 1);
    }

    #[test]
    fn what_is_not_there_or_spares_nothing_is_not_chosen() {
        let ways = [
            (way(b"patch", 3 * MB, true, 0), Place::Nowhere),
            (way(b"cold", 30 * MB, false, 0), Place::Here),
        ];
        let facts =
            Facts { shipped: 30 * MB, rate: Some(MB), speeds: Speeds::default(), prefer: Prefer::Bytes };
        let choice = choose(&ways, &facts);
        assert_eq!((choice.chosen, choice.ways[0].bytes), (0, 30 * MB));
        assert!(choice.ways[1..].iter().all(|way| way.out_of_question.is_some()));
    }

    #[test]
    fn what_a_neighbour_holds_is_fetched_first() {
        let ways = |place| [(way(b"patch", MB, true, 0), place)];
        let facts =
            Facts { shipped: 30 * MB, rate: Some(MB), speeds: Speeds::default(), prefer: Prefer::Time };
        let seconds = |place| choose(&ways(place), &facts).ways[1].seconds;
        assert!(seconds(Place::Site) > seconds(Place::Here));
    }
}
