//! Branchline brings software packages to branch offices: one copy over the WAN, the rest from
//! neighbours.

pub mod core;
pub mod front;
pub mod node;
pub mod net;
pub mod origin;
pub mod store;
