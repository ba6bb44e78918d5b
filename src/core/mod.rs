//! What Branchline decides, without doing any of it.
//!
//! Everything here is deterministic: no task, file, socket, clock or randomness. Time is an
//! argument, and so is every fact about the world. That is what lets the simulator in
//! `tests/sim` run the same coordinator by the thousand.

pub mod bitrate;
pub mod budget;
pub mod bundle;
pub mod chunker;
pub mod chunkset;
pub mod evict;
pub mod flight;
pub mod gc;
pub mod hubs;
pub mod id;
pub mod keeping;
pub mod lapse;
pub mod ledger;
pub mod manifest;
pub mod orders;
pub mod pace;
pub mod pack;
pub mod quota;
pub mod rank;
pub mod recheck;
pub mod recipe;
pub mod strain;
pub mod swarm;
pub mod upstream;
pub mod window;
pub mod wire;
pub mod yielding;
