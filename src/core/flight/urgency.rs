//! How urgent a client is.

/// For whom something is fetched, the least urgent first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// Nobody waits for it: others go first on the WAN.
    Background,
    /// A client waits.
    #[default]
    Foreground,
    /// A client waits, and no closed window holds it back.
    Urgent,
}

impl Urgency {
    /// All of them, the least urgent first.
    pub const ALL: [Self; 3] = [Self::Background, Self::Foreground, Self::Urgent];

    /// As members say it to each other.
    pub fn of(background: bool, urgent: bool) -> Self {
        match (urgent, background) {
            (true, _) => Self::Urgent,
            (false, true) => Self::Background,
            (false, false) => Self::Foreground,
        }
    }

    /// As people call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Background => "background",
            Self::Foreground => "foreground",
            Self::Urgent => "urgent",
        }
    }
}
