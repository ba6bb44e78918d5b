//! Giving way to others on the site's link: probes while this node pulls in the background, and a cap
//! on that as [`crate::core::yielding`] says.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Node, settle};
use crate::core::ledger::WanReason;
use crate::core::yielding::{EVERY, Yielding};
use crate::origin::{Carried, Echo, Origin, OriginError, Probe};

/// A probe that is not answered in this time is lost.
const PATIENCE: Duration = Duration::from_secs(2);
/// So long after the last answer a slow run may be slow because it gives way.
const ALIVE: Duration = Duration::from_secs(3);
/// Probes go on for so long after the last run: the next may follow soon.
const LINGER: Duration = Duration::from_secs(2);
/// A rate below this has fewer probes, so that they stay a small part of it, in bytes per second.
const SLOW: u64 = 300_000;
const SELDOM: Duration = Duration::from_millis(500);
/// Probes without a usable answer, in a row, after which there is no way to measure; and how long that
/// is believed.
const FRUITLESS: u32 = 8;
const AGAIN: Duration = Duration::from_secs(60);
/// Probes when the agent has started, of which the first connects: what the link is like before it is
/// busy. Some 2 kB, of nodes that may lead.
const GLIMPSES: u32 = 3;
/// How the ledger calls the probes.
const LABEL: &str = "(link)";

/// What is known of the link, and why it is not measured if it is not.
#[derive(Debug)]
pub(super) struct GivingWay {
    controller: Mutex<Yielding>,
    unable: Mutex<Option<String>>,
    active: AtomicBool,
    bytes: AtomicU64,
}

impl GivingWay {
    pub(super) fn new() -> Self {
        Self {
            controller: Mutex::new(Yielding::new(Instant::now())),
            unable: Mutex::default(),
            active: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
        }
    }

    pub(super) fn controller(&self) -> MutexGuard<'_, Yielding> {
        self.controller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the link cannot be measured.
    pub(super) fn unable(&self) -> Option<String> {
        self.unable.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_unable(&self, why: Option<String>) {
        *self.unable.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Whether the link is measured now.
    pub(super) fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// What the probes have taken from the WAN so far, in bytes, both ways and with headers.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// A probe whose bytes are booked.
///
/// # Errors
/// As [`Origin::open`].
pub(super) fn probe(node: &Node, origin: Option<&Origin>) -> Result<Option<Probe>, OriginError> {
    let Some(origin) = origin else {
        node.inner.giving_way.set_unable(Some("there is no origin, the way to which would tell".into()));
        return Ok(None);
    };
    let (books, giving_way) = (node.inner.books.clone(), node.inner.giving_way.clone());
    let sink = move |carried: Carried| {
        let wire = carried.wire;
        giving_way.bytes.fetch_add(wire.read + wire.headers + wire.sent, Ordering::Relaxed);
        books.carried(LABEL, WanReason::Probe, carried);
    };
    let probe = Probe::new(origin, Arc::new(sink))?;
    if probe.is_none() {
        node.inner.giving_way.set_unable(Some("a folder is no network, so there is no queue to see".into()));
    }
    Ok(probe)
}

/// Measures the link while something is pulled in the background, as long as the agent runs.
pub(super) async fn keep(node: Node, probe: Probe) {
    tokio::time::sleep(settle(&node.inner.config)).await;
    let glimpses = if node.inner.net.is_hub() { GLIMPSES } else { 0 };
    for _ in 0..glimpses {
        if let Echo::After(round_trip) = probe.ask(PATIENCE).await {
            node.inner.giving_way.controller().glimpse(Instant::now(), round_trip);
        }
    }
    let (allowance, giving_way) = (&node.inner.allowance, &node.inner.giving_way);
    loop {
        allowance.begun_in_background().await;
        giving_way.active.store(true, Ordering::Relaxed);
        let unable = measure(&node, &probe).await.err();
        giving_way.active.store(false, Ordering::Relaxed);
        allowance.give_way(None, None);
        if let Some(why) = unable {
            tracing::warn!(
                why,
                "the queue before the link cannot be measured; the background does not give way"
            );
            giving_way.set_unable(Some(why));
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Until nothing has been pulled in the background for a while.
///
/// # Errors
/// Why the link cannot be measured.
async fn measure(node: &Node, probe: &Probe) -> Result<(), String> {
    let (allowance, giving_way) = (&node.inner.allowance, &node.inner.giving_way);
    giving_way.controller().begin(Instant::now(), allowance.in_background());
    let (mut used, mut fruitless) = (Instant::now(), 0);
    loop {
        let cap = {
            let controller = giving_way.controller();
            allowance.give_way(Some(controller.cap()), controller.holds_back_until(ALIVE));
            controller.cap()
        };
        let next = Instant::now() + if cap.rate < SLOW { SELDOM } else { EVERY };
        if allowance.is_in_background() && allowance.is_closed_to_background() {
            // Probes are WAN bytes too.
            giving_way.controller().begin(Instant::now(), allowance.in_background());
            used = Instant::now();
        } else if allowance.is_in_background() {
            used = Instant::now();
            let echo = probe.ask(PATIENCE).await;
            fruitless = if matches!(echo, Echo::After(_)) { 0 } else { fruitless + 1 };
            match echo {
                Echo::After(round_trip) => {
                    giving_way.set_unable(None);
                    let pulled = allowance.in_background();
                    giving_way.controller().answered(Instant::now(), round_trip, pulled);
                }
                Echo::Late => giving_way.controller().lost(Instant::now(), allowance.in_background()),
                Echo::Refused(why) if fruitless >= FRUITLESS => return Err(why),
                Echo::Connected if fruitless >= FRUITLESS => {
                    return Err("the origin closes each connection after one answer".into());
                }
                Echo::Refused(_) | Echo::Connected => {}
            }
        } else if used.elapsed() >= LINGER {
            return Ok(());
        }
        tokio::time::sleep_until(next.into()).await;
    }
}
