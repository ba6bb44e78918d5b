//! What was ordered to be kept, and how far it is.

use serde::{Deserialize, Serialize};

/// A version that was ordered, in `GET /api/v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// `NAME@VERSION`.
    pub package: String,
    /// What was ordered, and by whom.
    pub orders: Vec<String>,
    /// Its length, in bytes.
    pub size: u64,
    /// Bytes that this node holds.
    pub bytes: u64,
    /// This node holds all of it.
    pub complete: bool,
    /// It is to be on this node.
    pub here: bool,
    /// It is not evicted here.
    pub pinned: bool,
    /// It is being fetched.
    pub coming: bool,
    /// Why it could not be fetched; it is tried again.
    pub refused: Option<String>,
    /// How many copies the site is to keep, if that was ordered: a number, or `all`.
    pub copies_wanted: Option<String>,
    /// Nodes that hold all of it and serve it, as far as they answer.
    pub copies: usize,
    /// How many machines may be lost, whichever they are, and one still holds all of it.
    pub survives: Option<usize>,
    /// When it is to be there, UTC.
    pub by: Option<String>,
}

impl Kept {
    /// How far it is, in words.
    pub fn state(&self) -> String {
        let share = self.bytes.saturating_mul(100).checked_div(self.size).unwrap_or(100);
        let wanted = self.copies_wanted.as_deref().map(|wanted| format!(" of {wanted}")).unwrap_or_default();
        let copies = match self.copies {
            0 => format!("{share} % here, no whole copy on the site yet"),
            1 => format!("100 %, 1{wanted} copy, survives no loss"),
            n => format!("100 %, {n}{wanted} copies, survives the loss of {}", machines(n - 1)),
        };
        match (&self.refused, self.complete, self.here) {
            (Some(why), _, _) => format!("{copies}; not here: {why}"),
            (None, false, true) if self.copies > 0 => format!("{copies}; {share} % here"),
            _ => copies,
        }
    }
}

fn machines(n: usize) -> String {
    if n == 1 { "1 machine".to_owned() } else { format!("{n} machines") }
}
