//! The way over the WAN: published trees in a folder, on a web server, or in an S3 bucket, and the
//! signed catalog in them. Every byte is metered where it is read.

pub mod address;
pub mod bundle;
pub mod catalog;
pub mod channels;
mod client;
mod enter;
pub mod history;
mod keeper;
pub mod keys;
pub mod meter;
mod probe;
pub mod publish;
pub mod push;
pub mod recipes;
mod rollback;
mod sign;
mod tcp_info;
mod tempo;
mod transport;
pub mod upstream;
mod verify;
mod window;

pub use address::Address;
pub use catalog::Catalog;
pub use client::Origin;
pub use keeper::Keeper;
pub use meter::{Carried, Meter, Sink};
pub use probe::{Echo, Probe};
pub use verify::{Doubt, Fetch};

/// An error with its causes, which many libraries leave out of their message.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut at = error.source();
    while let Some(cause) = at {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        at = cause.source();
    }
    text
}

/// Why the origin did not give what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OriginError {
    /// There is no such object.
    #[error(
        "the origin has no {path} (404): the tree there is incomplete; publish again or check the origin's address"
    )]
    NotFound {
        /// Within the origin's tree.
        path: String,
    },
    /// The server cannot do what Branchline needs.
    #[error("the origin does not support {what}")]
    Unsupported {
        /// In words.
        what: String,
    },
    /// It is not to be read or written by us.
    #[error("the origin refuses access to {path}: check the credentials")]
    Denied {
        /// Within the origin's tree.
        path: String,
    },
    /// An object is longer than anything that belongs there.
    #[error("{path} at the origin is longer than {most} bytes")]
    TooLong {
        /// Within the origin's tree.
        path: String,
        /// The bound, in bytes.
        most: u64,
    },
    /// Nothing came for a while.
    #[error("the origin sent nothing for {0} s")]
    Silent(u64),
    /// The connection, the server or the disk failed.
    #[error("the origin cannot be read: {0}")]
    Failed(String),
    /// What it says is not believed.
    #[error(transparent)]
    Doubt(#[from] Doubt),
    /// Somebody else has changed the object in the meantime.
    #[error("somebody else is publishing to this origin; try again")]
    Conflict,
    /// The address, a key, or a local file is not usable.
    #[error("{0}")]
    Invalid(String),
}

impl OriginError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Silent(_) | Self::Failed(_))
    }
}
