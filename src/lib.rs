//! Branchline brings software packages to branch offices: one copy over the WAN, the rest from
//! neighbours.
//!
//! # The layers
//! Imports go down only, which `tests/layers.rs` holds: `core <- recipe, store, net <- node <- front`, with
//! `origin` above `recipe` and below `node`.
//!
//! - [`core`]: what is decided, without doing any of it. Pure: time is an argument.
//! - [`recipe`]: looks inside packages, and puts them together again.
//! - [`store`]: blob files, and the index over them.
//! - [`net`]: the members of the site, and the wire between them.
//! - [`origin`]: the metered way over the WAN, the signed catalog, publishing.
//! - [`node`]: drives the coordinator; effects become calls, results become inputs.
//! - [`front`]: HTTP and the command line.
//!
//! # One request's way
//! A client asks the gateway for `/packages/firefox/stable` (`front/http/packages.rs`). The node
//! resolves the name in the signed catalog ([`node::catalog`]) and begins to read the blob
//! ([`node::reader`]). What is in the store is handed out; for the rest the reader says
//! [`Want`](core::flight::Input::Want) to the coordinator ([`core::flight`]), which asks the
//! best-ranked node of the site to lead, or leads itself: it asks the members, pulls over the WAN
//! what none of them holds (`node/wan.rs`), and tells its followers who holds what; they fetch from
//! each other (`node/peers.rs`, [`core::swarm`]). Every chunk is verified as it is stored
//! ([`store`]), which wakes the reader, and is booked where it came in ([`node::books`]).

pub mod core;
pub mod front;
pub mod net;
pub mod node;
pub mod origin;
pub mod recipe;
pub mod store;
