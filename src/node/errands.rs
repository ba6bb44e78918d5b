//! What an admin wants of this node, or of every node of the site at once.
//!
//! Whoever holds the site's key may send one: members trust each other to that extent, as they do
//! for the content that they pass on (which proves itself). An errand never touches anything but the
//! cache and the site's orders.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::gc::Gc;
use super::neighbours::Answers;
use super::report::VerifyRun;
use super::{Node, blocking};
use crate::core::bitrate::Rate;
use crate::core::id::NodeId;
use crate::core::orders::{Heard, Order, OrderError, Orders, Selector, Subject};
use crate::core::wire::message::{self, Request, request};

/// A node is waited for so long.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest errand, in bytes.
const LONGEST: usize = 128 << 10;

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Errand {
    /// Hear of an order.
    Hear {
        /// Its name.
        name: String,
        /// It.
        order: Order,
    },
    /// Throw a package away.
    Evict {
        /// Which.
        package: Selector,
    },
    /// Get a catalog that a member has from a bundle.
    Catalog {
        /// Its version.
        version: u64,
        /// The member.
        at: NodeId,
    },
    /// Read back what is held, and hash it.
    Verify {
        /// One package of it.
        package: Option<Selector>,
        /// No faster; as fast as the disk gives, if nothing is said.
        rate: Option<Rate>,
    },
    /// Tell how far that is.
    Verified,
    /// Free what nothing needs.
    Gc(Gc),
}

/// Something that an errand was about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// A package, or a file.
    pub what: String,
    /// Why it was concerned.
    pub why: String,
    /// Bytes of it.
    pub bytes: u64,
}

/// What one node says to an errand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Which node; filled in by whoever asked.
    #[serde(default)]
    pub node: String,
    /// Its host name.
    pub host: String,
    /// It is done, or there was nothing to do.
    pub ok: bool,
    /// In words.
    pub text: String,
    /// Bytes that it is about: freed, or read.
    #[serde(default)]
    pub bytes: u64,
    /// The order that holds instead of the one that was given.
    #[serde(default)]
    pub instead: Option<Order>,
    /// What was freed, one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Item>,
    /// The reading that was begun, as far as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifyRun>,
}

/// What has become of an errand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// The nodes that answered, this one first.
    pub nodes: Vec<Outcome>,
    /// Nodes that did not answer. Orders reach them when they are back; nothing else does.
    pub unanswered: Vec<String>,
}

impl Outcome {
    /// Done.
    pub(super) fn done(text: impl Into<String>, bytes: u64) -> Self {
        Self { ok: true, text: text.into(), bytes, ..Self::refused("") }
    }

    /// Not done, and why.
    pub(super) fn refused(text: impl Into<String>) -> Self {
        let host = gethostname::gethostname().to_string_lossy().into_owned();
        Self { host, text: text.into(), ..Self::default() }
    }
}

impl Node {
    /// Gives an order for the whole site, or takes one back, and tells all nodes at once.
    ///
    /// # Errors
    /// [`OrderError`] if this node cannot take it.
    pub async fn give_order<S: Subject + Send + 'static>(
        &self,
        by: String,
        key: S::Key,
        what: Option<S>,
    ) -> Result<Outcomes, OrderError>
    where
        S::Key: Send + 'static,
    {
        let node = self.clone();
        let given = blocking(move || node.orders().give(&by, &key, what.as_ref())).await;
        let stopping = || OrderError::Invalid("the agent is stopping".into());
        let (name, order) = given.ok_or_else(stopping)??;
        tracing::info!(order = name, by = order.by, given = order.what.is_some(), "an order for the site");
        self.tell_all_orders();
        Ok(self.run_everywhere(Errand::Hear { name, order }).await)
    }

    /// Runs an errand at this node.
    pub async fn run(&self, errand: Errand) -> Outcome {
        let outcome = match errand {
            Errand::Hear { name, order } => self.hear_order(name, order).await,
            Errand::Evict { package } => self.evict(&package).await,
            Errand::Verify { package, rate } => match self.begin_verification(package.as_ref(), rate).await {
                Ok(run) => verified(Some(run)),
                Err(why) => Outcome::refused(why),
            },
            Errand::Verified => verified(self.verification().by_hand),
            Errand::Gc(wanted) => self.gc(&wanted).await,
            Errand::Catalog { version, at } => self.learn_catalog(version, at).await,
        };
        Outcome { node: self.me().to_string(), ..outcome }
    }

    /// Runs an errand at every node of the site.
    pub async fn run_everywhere(&self, errand: Errand) -> Outcomes {
        let json = serde_json::to_vec(&errand).unwrap_or_default();
        let request = |site| errand_request(json.clone(), site);
        let (own, others) = tokio::join!(self.run(errand), self.ask_all::<Outcome>(request, PATIENCE));
        let named = others.nodes.into_iter().map(|(node, outcome)| Outcome { node, ..outcome });
        Outcomes { nodes: std::iter::once(own).chain(named).collect(), unanswered: others.unanswered }
    }

    /// An errand that a member brings, for this node or for all that it is connected to.
    pub(super) async fn errand_of_member(&self, wanted: &message::Errand) -> Option<String> {
        if wanted.json.len() > LONGEST || (wanted.site && !self.inner.net.is_hub()) {
            return None;
        }
        let errand: Errand = serde_json::from_slice(&wanted.json).ok()?;
        if !wanted.site {
            return serde_json::to_string(&self.run(errand).await).ok();
        }
        let request = errand_request(wanted.json.to_vec(), false);
        let (own, mut answers) =
            tokio::join!(self.run(errand), self.ask_within_reach::<Outcome>(&request, None, PATIENCE));
        answers.nodes.push((self.me().to_string(), own));
        serde_json::to_string::<Answers<Outcome>>(&answers).ok()
    }

    async fn hear_order(&self, name: String, order: Order) -> Outcome {
        let node = self.clone();
        let given = order.what.is_some();
        let heard = blocking(move || node.orders().hear(&name, order)).await;
        if matches!(heard, Some(Ok(Heard::New))) {
            self.tell_all_orders();
        }
        match heard {
            Some(Ok(Heard::New | Heard::Known)) => match self.no_room(None).filter(|_| given) {
                Some(why) => Outcome::refused(format!("heard, but {why}")),
                None => Outcome::done(if given { "heard" } else { "taken back" }, 0),
            },
            Some(Ok(Heard::Superseded(by))) => {
                let text = format!("a later order holds, given by {}", by.by);
                Outcome { instead: Some(by), ..Outcome::refused(text) }
            }
            Some(Err(error)) => Outcome::refused(error.to_string()),
            None => Outcome::refused("the agent is stopping"),
        }
    }

    async fn learn_catalog(&self, version: u64, at: NodeId) -> Outcome {
        let catalog = &self.inner.catalog;
        if catalog.current().is_some_and(|catalog| catalog.version >= version) {
            return Outcome::done("known", 0);
        }
        match catalog.learn(at).await {
            Ok(()) => Outcome::done("learned", 0),
            Err(why) => Outcome::refused(why),
        }
    }

    /// Throws the versions away that a selector means.
    async fn evict(&self, package: &Selector) -> Outcome {
        let Some(catalog) = self.catalog().current() else {
            return Outcome::refused("there is no catalog yet, so nothing is known by name");
        };
        let wanted = package.wanted.as_ref().map(|wanted| wanted.as_str());
        let (name, version, published) = match catalog.resolve(package.name.as_str(), wanted) {
            Ok(found) => found,
            Err(error) => return Outcome::refused(error.to_string()),
        };
        let label = format!("{name}@{version}");
        let (store, blob) = (self.inner.store.clone(), published.blob);
        let held = store.list().into_iter().find(|held| held.blob == blob);
        match held {
            None => return Outcome::done(format!("{label} was not held"), 0),
            Some(held) if held.pinned => {
                return Outcome::refused(format!(
                    "{label} is kept here: see 'branchline orders'; take that back first"
                ));
            }
            Some(_) => {}
        }
        match blocking(move || store.remove(&blob)).await {
            Some(Ok(true)) => Outcome::done(format!("{label} is gone"), published.size),
            Some(Ok(false)) => {
                Outcome::refused(format!("{label} is in use: somebody reads or fetches it; try again"))
            }
            Some(Err(error)) => Outcome::refused(error.to_string()),
            None => Outcome::refused("the agent is stopping"),
        }
    }
}

fn verified(run: Option<VerifyRun>) -> Outcome {
    match run {
        Some(run) => {
            let text = run.summary();
            Outcome { ok: run.errors.is_empty(), verify: Some(run.clone()), ..Outcome::done(text, run.bytes) }
        }
        None => Outcome::refused("nothing was verified by hand since this agent started"),
    }
}

fn errand_request(json: Vec<u8>, site: bool) -> Request {
    Request { body: Some(request::Body::Errand(message::Errand { json: json.into(), site })) }
}

/// The orders of a site, and of the node that was asked alone.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AllOrders {
    /// Of the site.
    pub site: Orders,
    /// Of this node.
    pub node: Orders,
}

impl Node {
    /// All orders that this node goes by.
    pub fn all_orders(&self) -> AllOrders {
        AllOrders { site: Orders::clone(&self.orders().now()), node: Orders::clone(&self.own_orders().now()) }
    }
}
