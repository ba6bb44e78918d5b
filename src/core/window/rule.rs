//! How much may be taken, for whom.

use std::fmt;

use crate::core::bitrate::Rate;

/// The most of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cap {
    /// Nothing at all.
    Closed,
    /// So much.
    Rate(Rate),
    /// As much as there is.
    Unlimited,
}

/// What holds for whom. Urgent clients are bound by neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// For clients that wait, and with what the background takes in it.
    pub foreground: Cap,
    /// Of that, for what nobody waits for.
    pub background: Cap,
}

impl Cap {
    /// Nothing may cross.
    pub fn is_closed(self) -> bool {
        self == Self::Closed
    }

    /// # Errors
    /// What would be right, in words.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        match text.trim() {
            "none" => Ok(Self::Closed),
            "unlimited" => Ok(Self::Unlimited),
            rate => rate
                .parse()
                .map(Self::Rate)
                .map_err(|_| format!("{text:?} is no rate; write 20mbit, \"none\" or \"unlimited\"")),
        }
    }
}

impl Rule {
    /// No bounds.
    pub const OPEN: Self = Self { foreground: Cap::Unlimited, background: Cap::Unlimited };
    /// Nothing crosses.
    pub const CLOSED: Self = Self { foreground: Cap::Closed, background: Cap::Closed };

    /// Of one kind.
    pub fn of(&self, background: bool) -> Cap {
        if background { self.background } else { self.foreground }
    }
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed"),
            Self::Rate(rate) => rate.fmt(f),
            Self::Unlimited => f.write_str("unlimited"),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.foreground, self.background) {
            (Cap::Closed, Cap::Closed) => f.write_str("closed"),
            (foreground, background) if foreground == background => foreground.fmt(f),
            (foreground, background) => write!(f, "{foreground}, background {background}"),
        }
    }
}
