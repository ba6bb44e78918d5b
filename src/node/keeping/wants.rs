//! What this node is to have, by the orders of its site and its own, and by its configuration.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use super::super::Node;
use super::super::catalog::Resolved;
use super::site::Mates;
use super::{Failures, Part};
use crate::core::id::BlobId;
use crate::core::keeping::{Has, Mate, keeps};
use crate::core::orders::{Copies, Orders, Pin, Seed, Selector};

/// A blob that something was ordered of.
#[derive(Debug, Clone)]
pub(super) struct Want {
    pub(super) resolved: Resolved,
    /// It is to be here.
    pub(super) fetch: bool,
    /// If it is here, it stays.
    pub(super) pin: bool,
    /// When it is to be here.
    pub(super) by: Option<Timestamp>,
    /// How many copies the site is to keep, if anybody has said so.
    pub(super) copies: Option<Copies>,
    /// What was ordered, and by whom.
    pub(super) why: Vec<String>,
    /// It is followed by these names.
    pub(super) follows: Vec<Selector>,
}

/// All of them, and what cannot be done.
#[derive(Debug, Default)]
pub(super) struct Wants {
    pub(super) by_blob: BTreeMap<BlobId, Want>,
    pub(super) troubles: Vec<String>,
}

/// What was ordered, by name.
pub(super) struct Ordered {
    site: Arc<Orders>,
    own: Arc<Orders>,
    follow: Vec<Selector>,
}

/// What holds now.
pub(super) fn ordered(node: &Node) -> Ordered {
    let follow = node.inner.config.follow.clone();
    Ordered { site: node.orders().now(), own: node.own_orders().now(), follow }
}

impl Ordered {
    pub(super) fn is_empty(&self) -> bool {
        let pins = self.site.all::<Pin>().next().is_some() || self.own.all::<Pin>().next().is_some();
        !pins && !self.any_seeds() && self.follow.is_empty()
    }

    pub(super) fn any_seeds(&self) -> bool {
        self.site.all::<Seed>().next().is_some()
    }

    /// What they mean, as the catalog stands and the site is.
    pub(super) fn resolve(
        &self,
        node: &Node,
        mates: &Mates,
        parts: &HashMap<BlobId, Part>,
        failures: &Failures,
    ) -> Wants {
        let mut wants = Wants::default();
        for (selector, seed, order) in self.site.all::<Seed>() {
            let why = format!("seed {selector} --copies {} by {}", seed.copies, order.by);
            let Some(want) = wants.of(node, &selector, why) else { continue };
            let (blob, part) = (want.resolved.published.blob, parts.get(&want.resolved.published.blob));
            let complete = part.is_some_and(|part| part.complete);
            let me = mate(node, &blob, complete, failures);
            let keeps = keeps(blob.as_bytes(), me, &mates.of(Instant::now(), &blob, complete), seed.copies);
            want.fetch |= keeps;
            want.pin |= keeps || seed.pin;
            want.copies = most(want.copies, seed.copies);
            want.by = earlier(want.by, seed.by);
        }
        for (orders, whose) in [(&self.site, "site"), (&self.own, "node")] {
            for (selector, _, order) in orders.all::<Pin>() {
                let why = format!("pin {selector} on this {whose} by {}", order.by);
                let Some(want) = wants.of(node, &selector, why) else { continue };
                (want.fetch, want.pin) = (true, true);
            }
        }
        for selector in &self.follow {
            let Some(want) = wants.of(node, selector, format!("follow {selector}")) else { continue };
            (want.fetch, want.pin) = (true, true);
            want.follows.push(selector.clone());
        }
        wants.leave_retired(parts);
        wants
    }
}

impl Wants {
    /// The blob that a selector means.
    fn of(&mut self, node: &Node, selector: &Selector, why: String) -> Option<&mut Want> {
        let resolved = match node.catalog().means(selector) {
            Ok(resolved) => resolved,
            Err(error) => {
                self.troubles.push(format!("{why}: {error}"));
                return None;
            }
        };
        let want = self.by_blob.entry(resolved.published.blob).or_insert_with(|| Want {
            resolved,
            fetch: false,
            pin: false,
            by: None,
            copies: None,
            why: Vec::new(),
            follows: Vec::new(),
        });
        want.why.push(why);
        Some(want)
    }
}

impl Wants {
    /// What is retired is not fetched any more; what is here of it stays as it was ordered.
    fn leave_retired(&mut self, parts: &HashMap<BlobId, Part>) {
        for (blob, want) in &mut self.by_blob {
            let Some(when) = want.resolved.published.retired else { continue };
            want.fetch = false;
            let here =
                if parts.contains_key(blob) { "what is here of it stays" } else { "it is not fetched" };
            let (label, day) = (want.resolved.label(), when.strftime("%Y-%m-%d"));
            self.troubles.push(format!("{}: {label} was retired on {day}, so {here}", want.why.join(", ")));
        }
    }
}

/// This node, as it stands to a blob.
fn mate(node: &Node, blob: &BlobId, complete: bool, failures: &Failures) -> Mate {
    let has = match complete {
        true => Has::All,
        false if failures.contains_key(blob) => Has::CannotHave,
        false => Has::Some,
    };
    Mate { node: node.me(), weight: node.weight_to_lead(), has }
}

fn most(one: Option<Copies>, other: Copies) -> Option<Copies> {
    Some(match (one, other) {
        (Some(Copies::AtLeast(one)), Copies::AtLeast(other)) => Copies::AtLeast(one.max(other)),
        (Some(Copies::All), _) | (_, Copies::All) => Copies::All,
        (None, other) => other,
    })
}

fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}
