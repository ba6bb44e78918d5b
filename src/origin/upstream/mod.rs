//! Foreign repositories, as they are configured and as they are asked: metered, and only at the
//! addresses that an admin gave.

mod answer;
mod credentials;
mod fetch;
mod gunzip;
mod redirect;
mod spec;
mod token;

pub use answer::Answer;
pub use credentials::Credentials;
pub use fetch::{Client, Fetch};
pub use spec::{InvalidUpstream, Kind, Upstream};

/// Why an upstream did not give what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// It answers with this status, which the client is told.
    #[error("the upstream {upstream} answers {status} to {path}")]
    Status {
        /// Its name.
        upstream: String,
        /// What was asked for.
        path: String,
        /// What it said.
        status: u16,
    },
    /// It was not reached, or broke off.
    #[error("the upstream {upstream} cannot be reached: {why}")]
    Unreachable {
        /// Its name.
        upstream: String,
        /// In words.
        why: String,
    },
    /// It sends somewhere else, and that is not followed.
    #[error("the upstream {upstream} redirects to {to}: {why}")]
    Redirect {
        /// Its name.
        upstream: String,
        /// Where to.
        to: String,
        /// Why that is not followed.
        why: &'static str,
    },
    /// What came is not what was asked for.
    #[error("the upstream {upstream} sent something wrong for {path}: {why}; nothing of it was kept")]
    Wrong {
        /// Its name.
        upstream: String,
        /// What was asked for.
        path: String,
        /// In words.
        why: String,
    },
}

impl UpstreamError {
    /// Whether trying again, there or at a mirror, may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Status { status, .. } => *status >= 500 || *status == 429,
            Self::Redirect { .. } | Self::Wrong { .. } => false,
        }
    }
}
