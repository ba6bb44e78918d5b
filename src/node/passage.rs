//! One answer's way through the site's limit: what is read of it is paid for, and what may come ahead.

use std::sync::Arc;

use super::allowance::Pulling;
use super::throttle::Owed;
use super::toll::Toll;
use crate::core::flight::Urgency;
use crate::origin::Meter;

/// Where an answer comes from: who bounds what comes ahead, and who counts what comes.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    pub(super) meter: Arc<Meter>,
    pub(super) toll: Arc<Toll>,
}

/// So much may come on a new connection before it is bounded, in bytes: what systems offer at first, and what they
/// add to it until that is read.
const FIRST: u64 = 96 << 10;

/// To be begun before the answer is asked for, and dropped at its end.
#[derive(Debug)]
pub(super) struct Passage {
    gate: Gate,
    pulling: Pulling,
    /// What was not read of the answer, in bytes.
    left: u64,
    /// Of it, what may have crossed, and is paid for.
    ahead: u64,
    /// Of what a new connection offers, what may still come beyond its window.
    first: u64,
}

impl Passage {
    /// Nothing is expected yet.
    pub(super) fn begin(pulling: Pulling, gate: Gate) -> Self {
        gate.toll.enter();
        Self { gate, pulling, left: 0, ahead: 0, first: 0 }
    }

    /// So many bytes are about to be asked for, or are known to come; `None` if nobody knows how many. What was
    /// asked for before is to be paid first: see [`Passage::holds_back`].
    pub(super) fn expects(&mut self, length: Option<u64>) -> Option<Owed> {
        self.left = length.unwrap_or(u64::MAX);
        let is_new = self.gate.toll.readers() > self.gate.meter.bounded();
        self.first = if is_new { FIRST } else { 0 };
        let owes = self.owes(0);
        self.pulling.throttle().take_next(owes)
    }

    /// What it comes for may become urgent on the way, or stop being so. True if it has: what was owed is
    /// another kind's then.
    pub(super) fn is_for(&mut self, urgency: Urgency) -> bool {
        self.pulling.is_for(urgency)
    }

    /// Whether it is slow because it gives way to others on the link.
    pub(super) fn gives_way(&self) -> bool {
        self.pulling.gives_way()
    }

    /// So much content was read; it is to be waited for with [`Passage::holds_back`].
    pub(super) fn pay(&mut self, content: u64) -> Option<Owed> {
        let owes = self.owes(content);
        self.pulling.throttle().take(owes)
    }

    /// What is to be paid now that so much content was read: that, or what may come ahead now, in bytes.
    fn owes(&mut self, content: u64) -> u64 {
        let window = self.pulling.window(self.gate.toll.round_trip());
        self.gate.meter.keep_window(window);
        self.left = self.left.saturating_sub(content);
        self.first = self.first.saturating_sub(content);
        let most = if window > 0 { self.first.max(window as u64) } else { 0 };
        let before = std::mem::replace(&mut self.ahead, self.left.min(most));
        self.gate.toll.owed(content, (before, self.ahead))
    }

    /// Waits a little if more may not come yet; false once it may.
    pub(super) async fn holds_back(&self, owed: Option<Owed>) -> bool {
        self.pulling.throttle().holds_back(owed).await
    }

    /// As [`Passage::expects`], and waits until what was asked for before is paid.
    pub(super) async fn waits_its_turn(&mut self, length: Option<u64>) {
        let owed = self.expects(length);
        while self.holds_back(owed).await {}
    }

    /// Lets content pass, and waits until more may.
    pub(super) async fn pass(&mut self, content: u64) {
        let owed = self.pay(content);
        while self.holds_back(owed).await {}
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let owed = self.gate.toll.leave(self.ahead);
        self.pulling.throttle().take(owed);
    }
}
