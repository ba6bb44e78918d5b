//! Branchline brings software packages to branch offices: one copy over the WAN, the rest from
//! neighbours.

pub mod core;
pub mod front;
pub mod net;
pub mod node;
pub mod origin;
pub mod store;
