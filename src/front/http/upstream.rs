//! Objects of upstreams over HTTP: as they come, by ranges, with what their upstream said of them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream;

use super::error::HttpError;
use super::range::{self, Wanted as Range};
use crate::core::upstream::record::Record;
use crate::front::pkg::{self, Artifact, NoArtifact};
use crate::node::Node;
use crate::node::upstream::{Came, Object, ObjectError};
use crate::origin::upstream::Kind;

/// An object of unknown length is read to this place: to its end.
const END: u64 = u64::MAX;

/// `/http/UPSTREAM/...`
pub(super) async fn files(
    State(node): State<Node>,
    Path((name, _)): Path<(String, String)>,
    request: Parts,
) -> Result<Response, HttpError> {
    let upstream = pkg::of_kind(node.upstream(&name), &name, Kind::Http)?;
    let path = below(&request, 2)?;
    serve(node, pkg::files::route(&upstream, &path), &request).await
}

/// The path below so many leading parts, as it was sent.
fn below(request: &Parts, parts: usize) -> Result<pkg::Path, NoArtifact> {
    let sent = request.uri.path_and_query().map_or("", |sent| sent.as_str());
    let path = sent.splitn(parts + 2, '/').nth(parts + 1).unwrap_or_default();
    pkg::Path::parse(path)
}

async fn serve(node: Node, artifact: Artifact, request: &Parts) -> Result<Response, HttpError> {
    let mut object = node.object(artifact.wanted, artifact.front);
    let (record, came) = object.about().await?;
    let etag = record.header("etag").unwrap_or_default().to_owned();
    let mut headers = describe(&record, came);
    if is_known(&request.headers, &record, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let asked = match record.size {
        Some(size) => range::wanted(&request.headers, size, &etag),
        None => Range::Whole,
    };
    let (status, part) = match (asked, record.size) {
        (Range::Part(part), Some(size)) => {
            insert(
                &mut headers,
                header::CONTENT_RANGE,
                &format!("bytes {}-{}/{size}", part.start, part.end - 1),
            );
            (StatusCode::PARTIAL_CONTENT, part)
        }
        (Range::Unsatisfiable, Some(size)) => {
            insert(&mut headers, header::CONTENT_RANGE, &format!("bytes */{size}"));
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, headers).into_response());
        }
        (_, size) => (StatusCode::OK, 0..size.unwrap_or(END)),
    };
    if record.size.is_some() {
        insert(&mut headers, header::CONTENT_LENGTH, &(part.end - part.start).to_string());
    }
    if request.method == Method::HEAD {
        return Ok((status, headers).into_response());
    }
    body(object, part, status, headers).await
}

/// The first bytes before the header, so that a failure has a status of its own.
async fn body(
    mut object: Object,
    mut part: std::ops::Range<u64>,
    status: StatusCode,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let first = object.next(&mut part).await?;
    let pieces = stream::unfold((first.map(Ok), object, part), |(ready, mut object, mut part)| async move {
        let piece = ready?;
        let next = match &piece {
            Ok(_) => object.next(&mut part).await.transpose(),
            Err(_) => None,
        };
        Some((piece, (next, object, part)))
    });
    let pieces: stream::BoxStream<'static, Result<bytes::Bytes, ObjectError>> = Box::pin(pieces);
    Ok((status, headers, Body::from_stream(pieces)).into_response())
}

/// Whether the client has it already.
fn is_known(headers: &HeaderMap, record: &Arc<Record>, etag: &str) -> bool {
    if headers.contains_key(header::IF_NONE_MATCH) {
        return !etag.is_empty() && range::is_known(headers, etag.trim_start_matches("W/"));
    }
    let date = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|date| date.timestamp());
    let since = headers.get(header::IF_MODIFIED_SINCE).and_then(|since| date(since.to_str().ok()?));
    let modified = record.header("last-modified").and_then(date);
    matches!((since, modified), (Some(since), Some(modified)) if modified <= since)
}

/// What the upstream said of it, and where it came from now.
fn describe(record: &Record, came: Came) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &record.headers {
        if let Ok(name) = HeaderName::try_from(name.as_str()) {
            insert(&mut headers, name, value);
        }
    }
    insert(&mut headers, header::ACCEPT_RANGES, "bytes");
    let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
    let age = if came == Came::Pulled { Duration::ZERO } else { record.age(now) };
    insert(&mut headers, header::AGE, &age.as_secs().to_string());
    let status = match came {
        Came::Held => "branchline; hit",
        Came::Checked => "branchline; hit; fwd=stale; fwd-status=304",
        Came::Pulled => "branchline; fwd=miss; stored",
        Came::Stale => "branchline; hit; fwd=stale; detail=\"the upstream is out of reach\"",
    };
    insert(&mut headers, HeaderName::from_static("cache-status"), status);
    headers
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
