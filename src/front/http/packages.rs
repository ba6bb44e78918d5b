//! `GET` and `HEAD /packages/NAME/VERSION`: the payload, while the rest is still on its way.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt};

use super::error::HttpError;
use super::range::{Wanted, has, is_known, wanted};
use crate::core::flight::Urgency;
use crate::core::id::BlobId;
use crate::core::ledger::Front;
use crate::node::Node;
use crate::node::catalog::Resolved;
use crate::node::reader::{Manner, ReadError};

/// A version never changes; where a channel points may.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
const FOR_NOW: &str = "no-cache";

pub(super) async fn latest(
    node: State<Node>,
    Path(name): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    answer(node.0, &name, None, &method, &headers).await
}

pub(super) async fn package(
    node: State<Node>,
    Path((name, version)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    answer(node.0, &name, Some(&version), &method, &headers).await
}

async fn answer(
    node: Node,
    name: &str,
    version: Option<&str>,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, HttpError> {
    let has_part = |blob: &BlobId| has(headers, &etag_of(blob));
    let resolved = node.resolve(name, version, has_part).await?;
    let size = resolved.published.size;
    let etag = etag_of(&resolved.published.blob);
    let fixed = version == Some(resolved.version.as_str());
    let mut described = describe(&resolved, &etag, if fixed { FOR_EVER } else { FOR_NOW });
    if is_known(headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, described).into_response());
    }
    let (status, range) = match wanted(headers, size, &etag) {
        Wanted::Whole => (StatusCode::OK, 0..size),
        Wanted::Part(range) => {
            let part = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            insert(&mut described, header::CONTENT_RANGE, &part);
            (StatusCode::PARTIAL_CONTENT, range)
        }
        Wanted::Unsatisfiable => {
            insert(&mut described, header::CONTENT_RANGE, &format!("bytes */{size}"));
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, described).into_response());
        }
    };
    insert(&mut described, header::CONTENT_LENGTH, &(range.end - range.start).to_string());
    if method == Method::HEAD {
        return Ok((status, described).into_response());
    }
    let mut reader = node.read(resolved, front(headers), manner(headers));
    let mut rest = range;
    // The first bytes before the header, so that a failure has a status of its own.
    let first = reader.next(&mut rest).await?;
    let more = stream::try_unfold((reader, rest), async |(mut reader, mut rest)| {
        let piece = reader.next(&mut rest).await?;
        Ok::<_, ReadError>(piece.map(|piece| (piece, (reader, rest))))
    });
    let body = stream::iter(first.map(Ok)).chain(more);
    Ok((status, described, Body::from_stream(body)).into_response())
}

fn etag_of(blob: &BlobId) -> String {
    format!("\"{blob}\"")
}

/// `branchline get` says who it is.
fn front(headers: &HeaderMap) -> Front {
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if agent.starts_with("branchline-get/") { Front::Get } else { Front::Packages }
}

/// By RFC 9218: urgency 0 goes through a closed window, 7 is for the background; the default is 3. By
/// RFC 7240: who prefers to wait does so until the WAN opens.
fn manner(headers: &HeaderMap) -> Manner {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let priority = text("priority").split(',').find_map(|part| part.trim().strip_prefix("u="));
    let urgency = match priority.and_then(|urgency| urgency.parse::<u8>().ok()) {
        Some(0) => Urgency::Urgent,
        Some(6..) => Urgency::Background,
        _ => Urgency::Foreground,
    };
    let waits = text("prefer").split(',').any(|part| part.trim().starts_with("wait="));
    Manner { urgency, waits }
}

fn describe(resolved: &Resolved, etag: &str, cache: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    insert(&mut headers, header::ETAG, etag);
    insert(&mut headers, header::ACCEPT_RANGES, "bytes");
    insert(&mut headers, header::CACHE_CONTROL, cache);
    insert(&mut headers, header::CONTENT_TYPE, "application/octet-stream");
    insert(&mut headers, header::HeaderName::from_static("branchline-version"), resolved.version.as_str());
    insert(&mut headers, header::HeaderName::from_static("branchline-sha256"), &resolved.published.sha256);
    headers
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
