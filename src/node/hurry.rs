//! How urgent a flight's clients are; may change while it pulls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::core::flight::Urgency;

/// Shared by all that pulls for one flight.
#[derive(Debug, Clone)]
pub(super) struct Hurry(Arc<AtomicU8>);

impl Hurry {
    pub(super) fn new(urgency: Urgency) -> Self {
        let hurry = Self(Arc::default());
        hurry.set(urgency);
        hurry
    }

    pub(super) fn set(&self, urgency: Urgency) {
        let place = Urgency::ALL.iter().position(|&it| it == urgency).unwrap_or_default();
        self.0.store(place as u8, Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> Urgency {
        Urgency::ALL.get(usize::from(self.0.load(Ordering::Relaxed))).copied().unwrap_or_default()
    }
}

impl Default for Hurry {
    fn default() -> Self {
        Self::new(Urgency::default())
    }
}
