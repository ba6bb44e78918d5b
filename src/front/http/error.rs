//! One table from error to HTTP status. The body is one line of text: what happened, and what to
//! do.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::core::orders::OrderError;
use crate::front::pkg::NoArtifact;
use crate::node::catalog::ResolveError;
use crate::node::media::{ExportError, ImportError};
use crate::node::reader::ReadError;
use crate::node::upstream::ObjectError;
use crate::origin::upstream::UpstreamError;

/// Tools send what they have for this host once they are asked; it is passed on to the upstream.
pub(super) const LOGIN: HeaderValue =
    HeaderValue::from_static("Basic realm=\"the upstream, through branchline\"");

/// An answer that is not what was asked for.
#[derive(Debug)]
pub(super) struct HttpError {
    status: StatusCode,
    text: String,
    /// It may be tried again after so many seconds.
    retry_after_s: Option<u64>,
}

impl HttpError {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), retry_after_s: None }
    }

    pub(super) fn bad_request(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    pub(super) fn not_found(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }

    pub(super) fn forbidden(text: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, text)
    }

    pub(super) fn busy(text: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, text)
    }

    pub(super) fn bad_gateway(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, text)
    }

    /// For requests that would change something at an upstream, or ask it a question.
    pub(super) async fn only_read() -> Self {
        let text = "the gateway hands out what repositories have (GET and HEAD); to publish, or to ask for an audit, use the repository itself";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, text)
    }

    /// For those who have a form of their own for errors.
    pub(super) fn into_parts(self) -> (StatusCode, String) {
        (self.status, self.text)
    }

    /// What cannot be: `what` could not be written down.
    pub(super) fn internal(what: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("no {what}; this is a mistake in here"))
    }
}

impl From<OrderError> for HttpError {
    fn from(error: OrderError) -> Self {
        let status = match &error {
            OrderError::TooMany => StatusCode::INSUFFICIENT_STORAGE,
            OrderError::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            OrderError::Invalid(_) => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }
}

impl From<ResolveError> for HttpError {
    fn from(error: ResolveError) -> Self {
        let status = match &error {
            ResolveError::Unresolved(_) | ResolveError::NoOrigin => StatusCode::NOT_FOUND,
            ResolveError::Retired { .. } => StatusCode::GONE,
            ResolveError::NoCatalog(_) | ResolveError::Expired { .. } | ResolveError::Unsure { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        Self::new(status, error.to_string())
    }
}

impl From<ExportError> for HttpError {
    fn from(error: ExportError) -> Self {
        let status = match error {
            ExportError::Unresolved(error) => return error.into(),
            ExportError::NotHeld { .. } | ExportError::NoOlder(_) => StatusCode::CONFLICT,
            ExportError::Bundle(_) => StatusCode::BAD_REQUEST,
            ExportError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
            ExportError::File(_) => StatusCode::INSUFFICIENT_STORAGE,
            ExportError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

impl From<ImportError> for HttpError {
    fn from(error: ImportError) -> Self {
        let status = match &error {
            ImportError::Bundle(_) | ImportError::Broken(_) => StatusCode::BAD_REQUEST,
            ImportError::Foreign { .. } | ImportError::Expired(_) | ImportError::Refused(_) => {
                StatusCode::FORBIDDEN
            }
            ImportError::Store(_) => StatusCode::INSUFFICIENT_STORAGE,
            ImportError::Busy => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

impl From<ReadError> for HttpError {
    fn from(error: ReadError) -> Self {
        let status = match &error {
            ReadError::Failed(_) => StatusCode::BAD_GATEWAY,
            ReadError::NoRoom(_) => StatusCode::INSUFFICIENT_STORAGE,
            ReadError::Stalled => StatusCode::GATEWAY_TIMEOUT,
            ReadError::CutOff { .. } => StatusCode::SERVICE_UNAVAILABLE,
            ReadError::Closed(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        let retry_after_s = match &error {
            ReadError::Closed(closed) => Some(closed.retry_after_s),
            _ => None,
        };
        Self { retry_after_s, ..Self::new(status, error.to_string()) }
    }
}

impl From<NoArtifact> for HttpError {
    fn from(error: NoArtifact) -> Self {
        let status = match &error {
            NoArtifact::NoUpstream { .. } | NoArtifact::NoSuch(_) => StatusCode::NOT_FOUND,
            NoArtifact::BadPath(_) => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }
}

impl From<ObjectError> for HttpError {
    fn from(error: ObjectError) -> Self {
        let status = match &error {
            ObjectError::Upstream(UpstreamError::Status { status, .. }) => of_upstream(*status),
            ObjectError::Upstream(UpstreamError::Unreachable { .. }) => StatusCode::GATEWAY_TIMEOUT,
            ObjectError::Upstream(_) | ObjectError::Changed(_) => StatusCode::BAD_GATEWAY,
            ObjectError::Closed(_) | ObjectError::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        let retry_after_s = match &error {
            ObjectError::Closed(closed) => Some(closed.retry_after_s),
            _ => None,
        };
        Self { retry_after_s, ..Self::new(status, error.to_string()) }
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
        let mut response = (self.status, headers, format!("{}\n", self.text)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, LOGIN);
        }
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// For every path that is not in the router.
pub(super) async fn no_such_path() -> HttpError {
    let text = "there is nothing here; packages are at /packages/NAME/VERSION, the API's description at /api/v1/openapi.json";
    HttpError::new(StatusCode::NOT_FOUND, text)
}
