//! A flight as it is shown to people and tests.

use super::state::{Flight, Role};
use crate::core::id::{BlobId, NodeId};

/// A flight, for people and tests.
#[derive(Debug, Clone)]
pub struct FlightView {
    /// Of which blob.
    pub blob: BlobId,
    /// What this node is in it.
    pub role: RoleView,
    /// Who leads, as far as this node knows.
    pub lead: Option<NodeId>,
    /// Followers that still want chunks; known to the lead alone.
    pub followers: usize,
    /// Chunks held here.
    pub held: u32,
    /// Chunks in all; 0 while the manifest is not known.
    pub count: u32,
    /// Chunks that are being pulled over the WAN by this node.
    pub pulling: u32,
    /// A client of this node waits for it.
    pub wanted: bool,
}

/// A role's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleView {
    /// Asks the members before it pulls.
    Asking,
    /// Pulls over the WAN.
    Lead,
    /// Waits for a lead's answer.
    Joining,
    /// Fetches from its site.
    Follower,
}

impl Flight {
    pub(super) fn view(&self) -> FlightView {
        let (role, followers, pulling) = match &self.role {
            Role::Lead(lead) if lead.is_asking() => (RoleView::Asking, lead.followers(), 0),
            Role::Lead(lead) => (RoleView::Lead, lead.followers(), lead.pulling().len()),
            Role::New | Role::Joining(_) => (RoleView::Joining, 0, 0),
            Role::Following(_) => (RoleView::Follower, 0, 0),
        };
        FlightView {
            blob: self.blob,
            role,
            lead: self.lead(),
            followers,
            held: self.held.len(),
            count: self.count(),
            pulling,
            wanted: self.wanted,
        }
    }
}
