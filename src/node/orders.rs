//! The orders of the site, and those of this node alone: kept on disk, and passed on to members.
//!
//! A node tells each member a digest of what it knows, when the two meet and when it learns more.
//! Whoever knows something else asks for all of it, and takes over what is later.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use super::{Node, blocking, durable};
use crate::core::id::NodeId;
use crate::core::orders::{Heard, LONGEST_ENCODING, Order, OrderError, Orders, Subject};
use crate::core::wire::message::{OrdersRequest, Request, request};

/// A member's orders are waited for so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Orders that outlive this process.
#[derive(Debug)]
pub struct OrderBook {
    me: NodeId,
    file: PathBuf,
    orders: Mutex<Arc<Orders>>,
    changed: watch::Sender<()>,
    asking: Mutex<HashSet<NodeId>>,
}

/// Now, in milliseconds since the epoch.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl OrderBook {
    /// Reads what is kept in a file; one that cannot be read is put aside.
    pub(super) fn open(me: NodeId, file: PathBuf) -> Self {
        let mut orders = read(&file);
        orders.forget(now_ms());
        let orders = Mutex::new(Arc::new(orders));
        Self { me, file, orders, changed: watch::Sender::new(()), asking: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Orders>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As they are now.
    pub fn now(&self) -> Arc<Orders> {
        self.lock().clone()
    }

    /// Is told when they change.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Gives an order, or takes one back; blocks. Its name, to tell others.
    ///
    /// # Errors
    /// [`OrderError`]; nothing has changed then.
    pub fn give<S: Subject>(
        &self,
        by: &str,
        key: &S::Key,
        what: Option<&S>,
    ) -> Result<(String, Order), OrderError> {
        self.change(|orders| orders.give(now_ms(), self.me, by, key, what))
    }

    /// Hears of an order; blocks.
    ///
    /// # Errors
    /// [`OrderError`] if it cannot be kept.
    pub(super) fn hear(&self, name: &str, order: Order) -> Result<Heard, OrderError> {
        self.change(|orders| orders.hear(now_ms(), name, order))
    }

    /// Changes them, and writes that down before anybody sees it.
    fn change<T>(&self, change: impl FnOnce(&mut Orders) -> Result<T, OrderError>) -> Result<T, OrderError> {
        let mut orders = self.lock();
        let mut changed = Orders::clone(&orders);
        let done = change(&mut changed)?;
        if changed != **orders {
            durable::write(&self.file, &changed.encoded()).map_err(|error| {
                OrderError::Invalid(format!("the order cannot be kept in {}: {error}", self.file.display()))
            })?;
            *orders = Arc::new(changed);
            drop(orders);
            self.changed.send_replace(());
        }
        Ok(done)
    }
}

fn read(file: &Path) -> Orders {
    let Ok(bytes) = std::fs::read(file) else { return Orders::default() };
    Orders::decode(&bytes).unwrap_or_else(|error| {
        let aside = file.with_extension("damaged");
        tracing::error!(%error, file = %file.display(), aside = %aside.display(),
            "the orders kept here are damaged and were put aside; those of the site come back from its members");
        std::fs::rename(file, aside).ok();
        Orders::default()
    })
}

impl Node {
    /// The orders of the site.
    pub fn orders(&self) -> &OrderBook {
        &self.inner.orders
    }

    /// The orders of this node alone.
    pub fn own_orders(&self) -> &OrderBook {
        &self.inner.own_orders
    }

    /// Tells a member that has come what is known here.
    pub(super) fn tell_orders(&self, to: &NodeId) {
        let orders = self.orders().now();
        if *orders != Orders::default() {
            self.inner.net.say_orders(to, &orders.digest());
        }
    }

    /// Tells all members.
    pub(super) fn tell_all_orders(&self) {
        let digest = self.orders().now().digest();
        self.inner
            .net
            .contacts()
            .iter()
            .for_each(|contact| self.inner.net.say_orders(&contact.node, &digest));
    }

    /// A member has told what it knows: if that is something else, it is asked.
    pub(super) async fn learn_orders(self, from: NodeId, digest: [u8; 32]) {
        let asking = || self.orders().asking.lock().unwrap_or_else(PoisonError::into_inner);
        if digest == self.orders().now().digest() || !asking().insert(from) {
            return;
        }
        let request = Request { body: Some(request::Body::Orders(OrdersRequest {})) };
        let ask = async {
            let answer = self.inner.net.ask_patiently(&from, &request, PATIENCE).await.ok()?;
            Orders::decode(&answer.read_all(LONGEST_ENCODING as u64).await.ok()?).ok()
        };
        let theirs = tokio::time::timeout(PATIENCE, ask).await.ok().flatten();
        asking().remove(&from);
        let Some(theirs) = theirs else { return };
        let node = self.clone();
        blocking(move || node.take_over(&from, theirs)).await;
    }

    fn take_over(&self, from: &NodeId, theirs: Orders) {
        let merged = self.orders().change(|orders| Ok(orders.merge(now_ms(), theirs.clone())));
        match merged {
            Ok(new) if !new.is_empty() => {
                tracing::info!(from = %from, orders = new.join(", "), "heard of orders");
                self.tell_all_orders();
            }
            Ok(_) if self.orders().now().knows_more_than(&theirs) => self.tell_orders(from),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "orders of a member were not taken over"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::orders::{Pin, Selector};

    #[test]
    fn orders_outlive_the_process_and_damage_is_put_aside() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("orders.json");
        let open = || OrderBook::open(NodeId::from_bytes([1; 32]), file.clone());
        let key: Selector = "firefox@stable".parse().expect("valid");
        let book = open();
        let changes = book.changes();
        book.give("ann", &key, Some(&Pin {})).expect("room");
        assert!(changes.has_changed().expect("open"));
        assert_eq!(open().now(), book.now());
        assert!(open().now().get::<Pin>(&key).is_some());
        std::fs::write(&file, b"{\"pin/").expect("own folder");
        assert_eq!(*open().now(), Orders::default());
        assert!(dir.path().join("orders.damaged").exists());
    }
}
