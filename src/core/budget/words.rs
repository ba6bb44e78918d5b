//! What is said about the budget, and what is to be done.

use crate::core::flight::Urgency;
use crate::core::id::NodeId;

/// As much as there is.
pub const UNLIMITED: u64 = 1 << 50;

/// Bytes per second, by how urgent their clients are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// For clients that no closed window holds back.
    pub urgent: u64,
    /// For clients that wait.
    pub foreground: u64,
    /// For what nobody waits for.
    pub background: u64,
}

impl Rates {
    pub(super) fn sum(&self) -> u64 {
        self.urgent.saturating_add(self.foreground).saturating_add(self.background)
    }

    /// Of one kind.
    pub fn of(&self, urgency: Urgency) -> u64 {
        match urgency {
            Urgency::Background => self.background,
            Urgency::Foreground => self.foreground,
            Urgency::Urgent => self.urgent,
        }
    }

    /// As each of them is changed.
    pub(super) fn each(self, change: impl Fn(Urgency, u64) -> u64) -> Self {
        Self {
            urgent: change(Urgency::Urgent, self.urgent),
            foreground: change(Urgency::Foreground, self.foreground),
            background: change(Urgency::Background, self.background),
        }
    }

    pub(super) fn exceeds(&self, other: &Self) -> bool {
        Urgency::ALL.iter().any(|&urgency| self.of(urgency) > other.of(urgency))
    }
}

/// What the site's schedule allows, in bytes per second: 0 is closed, [`UNLIMITED`] is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// For clients that wait and the background together.
    pub foreground: u64,
    /// Of it, for the background.
    pub background: u64,
}

impl Caps {
    /// No bounds.
    pub const OPEN: Self = Self { foreground: UNLIMITED, background: UNLIMITED };

    /// Of one kind.
    pub fn of(&self, urgency: Urgency) -> u64 {
        match urgency {
            Urgency::Background => self.background.min(self.foreground),
            Urgency::Foreground => self.foreground,
            Urgency::Urgent => UNLIMITED,
        }
    }
}

/// What the site goes by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rule {
    /// By the schedule, or by what was ordered over it; `None`: there is none.
    pub caps: Option<Caps>,
    /// What the site has used of its month, in bytes, if that is known.
    pub month_used: Option<u64>,
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
    /// From the holder to all: what its clock says that the site goes by.
    Rule(Rule),
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
