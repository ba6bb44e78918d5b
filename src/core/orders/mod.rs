//! What admins have ordered: a map that all nodes of a site share without a server.
//!
//! Every order carries a [`Stamp`]. Of two orders on one subject the later stamp holds, on every
//! node and in whatever order they arrive, so that nodes which have heard the same orders agree. A
//! stamp is later than all that its giver has heard of, whatever its clock says; two orders that are
//! given at the same moment by people who do not know of each other are told apart by their clocks,
//! then by their nodes, and whoever lost is told ([`Heard`]).
//!
//! An order that is taken back leaves a stamp behind, or a node that was away would bring it back.

mod subject;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::id::NodeId;
pub use subject::{Copies, Pin, Seed, Selector, Subject, WanSchedule, Whole};

/// Orders at a time, those included that were taken back.
const MOST: usize = 4096;
/// The longest order, in bytes of JSON.
const LONGEST: usize = 64 << 10;
/// The longest encoding of all orders, in bytes.
pub const LONGEST_ENCODING: usize = 4 << 20;
/// Who gave an order, in characters.
const LONGEST_NAME: usize = 128;
/// What an order that was taken back leaves behind is kept for so long, in milliseconds.
const REMEMBERED: u64 = 400 * 24 * 3600 * 1000;
/// A clock that is further ahead than this, in milliseconds, is not followed.
const AHEAD: u64 = 24 * 3600 * 1000;

/// When an order was given, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp {
    /// Milliseconds since the epoch, or one more than the latest that was known.
    pub at_ms: u64,
    /// The node that took the order.
    pub node: NodeId,
}

/// One order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// When, and where.
    pub stamp: Stamp,
    /// Who, for people.
    pub by: String,
    /// What, as its subject has it; nothing if it was taken back.
    pub what: Option<Value>,
}

/// What has become of an order that was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It holds now.
    New,
    /// It was known.
    Known,
    /// A later one holds.
    Superseded(Order),
}

/// Why an order cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// There are too many.
    #[error("the site has {MOST} orders already; take some back first")]
    TooMany,
    /// It is too long.
    #[error("the order takes {0} bytes; {LONGEST} are the most")]
    TooLong(usize),
    /// The subject is not one, or the order cannot be written down.
    #[error("{0}")]
    Invalid(String),
}

/// All orders that a node knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Orders {
    orders: BTreeMap<String, Order>,
}

impl Orders {
    // ---- what they say ---------------------------------------------------------------

    /// What was ordered on a subject, if it still holds.
    pub fn get<S: Subject>(&self, key: &S::Key) -> Option<S> {
        self.order::<S>(key).and_then(|order| serde_json::from_value(order.what.clone()?).ok())
    }

    /// The order on a subject, also if it was taken back.
    pub fn order<S: Subject>(&self, key: &S::Key) -> Option<&Order> {
        self.orders.get(&S::name(key))
    }

    /// All of them by name, those included that were taken back.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Order)> {
        self.orders.iter().map(|(name, order)| (name.as_str(), order))
    }

    /// All orders of a kind that hold. Those that this version does not understand are left out.
    pub fn all<S: Subject>(&self) -> impl Iterator<Item = (S::Key, S, &Order)> {
        let prefix = format!("{}/", S::KIND);
        let of_kind =
            self.orders.range(prefix.clone()..).take_while(move |(name, _)| name.starts_with(&prefix));
        of_kind.filter_map(|(name, order)| {
            let what = serde_json::from_value(order.what.clone()?).ok()?;
            Some((S::key(&name[S::KIND.len() + 1..])?, what, order))
        })
    }

    /// Whether there is something here that is not known there.
    pub fn knows_more_than(&self, other: &Self) -> bool {
        let later = |(name, order): (&String, &Order)| {
            other.orders.get(name).is_none_or(|known| known.stamp < order.stamp)
        };
        self.orders.iter().any(later)
    }

    /// A hash of all of it: two nodes whose hashes are equal have heard the same.
    pub fn digest(&self) -> [u8; 32] {
        *blake3::hash(&self.encoded()).as_bytes()
    }

    /// All of it, as it is kept and sent.
    pub fn encoded(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What was encoded.
    ///
    /// # Errors
    /// In words.
    pub fn decode(bytes: &[u8]) -> Result<Self, OrderError> {
        serde_json::from_slice(bytes).map_err(|error| OrderError::Invalid(format!("not orders: {error}")))
    }

    // ---- giving and hearing them -----------------------------------------------------

    /// Gives an order, or takes one back.
    ///
    /// # Errors
    /// [`OrderError`]; nothing has changed then.
    pub fn give<S: Subject>(
        &mut self,
        now_ms: u64,
        me: NodeId,
        by: &str,
        key: &S::Key,
        what: Option<&S>,
    ) -> Result<(String, Order), OrderError> {
        let invalid = |error: serde_json::Error| OrderError::Invalid(error.to_string());
        let what = what.map(serde_json::to_value).transpose().map_err(invalid)?;
        let latest = self.orders.values().map(|order| order.stamp.at_ms).max().unwrap_or(0);
        let by = by.chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect();
        let order = Order { stamp: Stamp { at_ms: now_ms.max(latest + 1), node: me }, by, what };
        let name = S::name(key);
        self.hear(now_ms, &name, order.clone())?;
        Ok((name, order))
    }

    /// Hears of an order.
    ///
    /// # Errors
    /// [`OrderError`] if it cannot be kept.
    pub fn hear(&mut self, now_ms: u64, name: &str, order: Order) -> Result<Heard, OrderError> {
        match self.orders.get(name) {
            Some(known) if known.stamp == order.stamp => return Ok(Heard::Known),
            Some(known) if known.stamp > order.stamp => return Ok(Heard::Superseded(known.clone())),
            _ => {}
        }
        let length =
            name.len() + order.by.len() + order.what.as_ref().map_or(0, |what| what.to_string().len());
        if length > LONGEST {
            return Err(OrderError::TooLong(length));
        }
        let latest = self.orders.values().map(|order| order.stamp.at_ms).max().unwrap_or(0);
        if order.stamp.at_ms > now_ms.max(latest).saturating_add(AHEAD) {
            let why = "its time is more than a day ahead; set the clock of the machine where it was given";
            return Err(OrderError::Invalid(why.into()));
        }
        if !self.orders.contains_key(name) && self.orders.len() >= MOST {
            self.forget(now_ms);
            if self.orders.len() >= MOST {
                return Err(OrderError::TooMany);
            }
        }
        self.orders.insert(name.to_owned(), order);
        Ok(Heard::New)
    }

    /// Hears of all that another node knows; the names of what is new here. What cannot be kept is
    /// left out.
    pub fn merge(&mut self, now_ms: u64, others: Self) -> Vec<String> {
        let mut new = Vec::new();
        for (name, order) in others.orders.into_iter().take(MOST) {
            if matches!(self.hear(now_ms, &name, order), Ok(Heard::New)) {
                new.push(name);
            }
        }
        new
    }

    /// Lets go of what was taken back long ago.
    pub fn forget(&mut self, now_ms: u64) {
        let old = now_ms.saturating_sub(REMEMBERED);
        self.orders.retain(|_, order| order.what.is_some() || order.stamp.at_ms > old);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn pin(text: &str) -> Selector {
        text.parse().expect("a selector")
    }

    #[test]
    fn the_later_order_holds_and_the_earlier_one_is_told() {
        let (mut here, mut there) = (Orders::default(), Orders::default());
        let key = pin("firefox@stable");
        let (name, first) = here.give(1000, node(1), "ann", &key, Some(&Pin {})).expect("room");
        // Given at the same moment elsewhere, by somebody who knows nothing of it.
        let (_, second) = there.give::<Pin>(1000, node(2), "bob", &key, None).expect("room");
        assert_eq!(here.hear(1000, &name, second.clone()), Ok(Heard::New));
        assert_eq!(there.hear(1000, &name, first), Ok(Heard::Superseded(second.clone())));
        assert_eq!(here, there);
        assert_eq!(here.get::<Pin>(&key), None);
        assert_eq!(here.order::<Pin>(&key), Some(&second));
        // A clock that is behind does not matter to who has heard of the others.
        here.give(5, node(1), "ann", &key, Some(&Pin {})).expect("room");
        assert!(there.merge(1000, here.clone()).len() == 1 && there == here);
        assert_eq!(there.all::<Pin>().count(), 1);
    }

    #[test]
    fn bounds_hold() {
        let mut orders = Orders::default();
        let order = |at_ms, what: Value| Order {
            stamp: Stamp { at_ms, node: node(1) },
            by: String::new(),
            what: Some(what),
        };
        let long = order(1, Value::String("x".repeat(LONGEST)));
        assert!(matches!(orders.hear(9, "x/1", long), Err(OrderError::TooLong(_))));
        let future = order(AHEAD + 10, Value::Null);
        assert!(matches!(orders.hear(9, "x/1", future), Err(OrderError::Invalid(_))));
        for n in 0..MOST {
            assert_eq!(orders.hear(9, &format!("x/{n}"), order(1, Value::Null)), Ok(Heard::New));
        }
        assert_eq!(orders.hear(9, "y", order(1, Value::Null)), Err(OrderError::TooMany));
        assert!(Orders::decode(b"[1").is_err());
    }

    proptest! {
        /// Whatever order they arrive in, and however often, nodes end with the same orders.
        #[test]
        fn nodes_agree(given in proptest::collection::vec((0u64..4, 0u8..3, 0usize..3, any::<bool>()), 1..30)) {
            let mut nodes = vec![Orders::default(); 3];
            for (at, who, subject, take_back) in given {
                let key = pin(["a@1", "b@stable", "c@2"][subject]);
                let what = (!take_back).then_some(Pin {});
                nodes[usize::from(who)].give(at, node(who), "x", &key, what.as_ref()).expect("room");
            }
            let all = nodes.clone();
            for (n, order) in [[0, 1, 2], [2, 1, 0], [1, 0, 2]].into_iter().enumerate() {
                for other in order.into_iter().chain(order) {
                    nodes[n].merge(10, all[other].clone());
                }
            }
            prop_assert_eq!(&nodes[0], &nodes[1]);
            prop_assert_eq!(nodes[1].digest(), nodes[2].digest());
            prop_assert_eq!(Orders::decode(&nodes[0].encoded()).expect("own"), nodes[0].clone());
        }
    }
}
