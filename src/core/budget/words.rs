//! What is said about the budget, and what is to be done.

use crate::core::id::NodeId;

/// Bytes per second, by how urgent their clients are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// For clients that wait.
    pub foreground: u64,
    /// For what nobody waits for.
    pub background: u64,
}

impl Rates {
    pub(super) fn sum(&self) -> u64 {
        self.foreground.saturating_add(self.background)
    }
}

/// What nodes say about the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// To the holder: what the sender could use, and what share it goes by.
    Ask {
        /// Could be used.
        demand: Rates,
        /// At present.
        share: Rates,
    },
    /// From the holder: what the receiver may use.
    Grant(Rates),
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Say something to a member.
    Say {
        /// To whom.
        to: NodeId,
        /// What.
        word: Word,
    },
    /// Keep to these rates from now on; `None`: there is no limit.
    Keep(Option<Rates>),
}
