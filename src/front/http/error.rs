//! One table from error to HTTP status. The body is one line of text: what happened, and what to
//! do.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::core::orders::OrderError;
use crate::front::pkg::NoArtifact;
use crate::node::catalog::ResolveError;
use crate::node::reader::ReadError;
use crate::node::upstream::ObjectError;
use crate::origin::upstream::UpstreamError;

/// An answer that is not what was asked for.
#[derive(Debug)]
pub(super) struct HttpError {
    status: StatusCode,
    text: String,
}

impl HttpError {
    pub(super) fn bad_request(text: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text: text.into() }
    }

    pub(super) fn busy(text: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, text: text.into() }
    }

    pub(super) fn bad_gateway(text: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_GATEWAY, text: text.into() }
    }

    /// For requests that would change something at an upstream, or ask it a question.
    pub(super) async fn only_read() -> Self {
        let text = "the gateway hands out what repositories have (GET and HEAD); to publish, or to ask for an audit, use the repository itself";
        Self { status: StatusCode::METHOD_NOT_ALLOWED, text: text.into() }
    }

    /// What cannot be: `what` could not be written down.
    pub(super) fn internal(what: &str) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            text: format!("no {what}; this is a mistake in here"),
        }
    }
}

impl From<OrderError> for HttpError {
    fn from(error: OrderError) -> Self {
        let status = match &error {
            OrderError::TooMany => StatusCode::INSUFFICIENT_STORAGE,
            OrderError::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            OrderError::Invalid(_) => StatusCode::BAD_REQUEST,
        };
        Self { status, text: error.to_string() }
    }
}

impl From<ResolveError> for HttpError {
    fn from(error: ResolveError) -> Self {
        let status = match &error {
            ResolveError::Unresolved(_) => StatusCode::NOT_FOUND,
            ResolveError::NoCatalog(_) | ResolveError::Expired(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self { status, text: error.to_string() }
    }
}

impl From<ReadError> for HttpError {
    fn from(error: ReadError) -> Self {
        let status = match &error {
            ReadError::Failed(_) => StatusCode::BAD_GATEWAY,
            ReadError::NoRoom(_) => StatusCode::INSUFFICIENT_STORAGE,
            ReadError::Stalled => StatusCode::GATEWAY_TIMEOUT,
        };
        Self { status, text: error.to_string() }
    }
}

impl From<NoArtifact> for HttpError {
    fn from(error: NoArtifact) -> Self {
        let status = match &error {
            NoArtifact::NoUpstream { .. } | NoArtifact::NoSuch(_) => StatusCode::NOT_FOUND,
            NoArtifact::BadPath(_) => StatusCode::BAD_REQUEST,
        };
        Self { status, text: error.to_string() }
    }
}

impl From<ObjectError> for HttpError {
    fn from(error: ObjectError) -> Self {
        let status = match &error {
            ObjectError::Upstream(UpstreamError::Status { status, .. }) => of_upstream(*status),
            ObjectError::Upstream(UpstreamError::Unreachable { .. }) => StatusCode::GATEWAY_TIMEOUT,
            ObjectError::Upstream(_) | ObjectError::Changed(_) => StatusCode::BAD_GATEWAY,
            ObjectError::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self { status, text: error.to_string() }
    }
}

/// What a client is told of what an upstream said: its refusals are passed on, but not its troubles, nor
/// what only makes sense between the two.
fn of_upstream(status: u16) -> StatusCode {
    match StatusCode::from_u16(status) {
        Ok(status) if status.is_client_error() => status,
        _ => StatusCode::BAD_GATEWAY,
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let headers =
            [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
        (self.status, headers, format!("{}\n", self.text)).into_response()
    }
}

/// For every path that is not in the router.
pub(super) async fn no_such_path() -> HttpError {
    let text = "there is nothing here; packages are at /packages/NAME/VERSION, the API's description at /api/v1/openapi.json";
    HttpError { status: StatusCode::NOT_FOUND, text: text.into() }
}
