//! Why a request to a registry is not answered, in the form that its clients read.

use serde_json::{Value, json};

use super::Item;

/// Why a request is not answered: one of the specification's codes, and words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The code.
    pub code: &'static str,
    /// What happened, and what to do.
    pub text: String,
}

impl Refusal {
    /// The body that clients know how to read.
    pub fn body(&self) -> String {
        json!({"errors": [{"code": self.code, "message": self.text, "detail": Value::Null}]}).to_string()
    }

    /// Of something else that went wrong, by its status.
    pub fn of_status(status: u16, item: Option<Item>, text: String) -> Self {
        let code = match (status, item) {
            (401, _) => "UNAUTHORIZED",
            (403, _) => "DENIED",
            (404, Some(Item::Manifest)) => "MANIFEST_UNKNOWN",
            (404, Some(Item::Blob)) => "BLOB_UNKNOWN",
            (404, _) => "NAME_UNKNOWN",
            (405, _) => "UNSUPPORTED",
            (429, _) => "TOOMANYREQUESTS",
            (400, _) => "NAME_INVALID",
            _ => "UNKNOWN",
        };
        Self { status, code, text }
    }

    /// Nothing is pushed through here.
    pub fn read_only() -> Self {
        let text = "this is a cache, which is only read: push to the registry itself";
        Self::of_status(405, None, text.into())
    }
}

pub(super) fn refuse<T>(status: u16, code: &'static str, text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { status, code, text: text.into() })
}
