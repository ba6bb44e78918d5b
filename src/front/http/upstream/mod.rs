//! Objects of upstreams over HTTP: as they come, by ranges, with what their upstream said of them.

mod by_recipe;
mod oci;
mod oci_login;
mod proxy;
mod rewritten;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::stream::{self, StreamExt};

use super::error::HttpError;
use super::range::{self, Wanted};
use crate::core::upstream::record::Record;
use crate::front::pkg::named::Seal;
use crate::front::pkg::{self, Artifact, Asked, NoArtifact, Routed};
use crate::node::Node;
use crate::node::upstream::{Came, Object, ObjectError};
use crate::origin::upstream::{Credentials, Kind, Upstream};

/// An object of unknown length is read to this place: to its end.
const END: u64 = u64::MAX;

/// A front of the gateway: which upstreams it speaks for, and how.
#[derive(Debug, Clone, Copy)]
struct Front {
    kind: Kind,
    path: fn(&str) -> Result<pkg::Path, NoArtifact>,
    route: pkg::Route,
}

/// The fronts, each below the name of its kind: `/KIND/UPSTREAM/...`.
const FRONTS: [Front; 5] = [
    APT,
    Front { kind: Kind::Cargo, path: pkg::Path::parse, route: pkg::cargo::route },
    Front { kind: Kind::Http, path: pkg::Path::parse, route: pkg::files::route },
    Front { kind: Kind::Npm, path: pkg::npm::path, route: pkg::npm::route },
    Front { kind: Kind::Pypi, path: pkg::Path::parse, route: pkg::pypi::route },
];

/// The one that is spoken to as a proxy, too.
const APT: Front = Front { kind: Kind::Apt, path: pkg::Path::parse, route: pkg::apt::route };

pub(super) use proxy::proxy;

pub(super) fn router(node: Node) -> Router {
    FRONTS
        .into_iter()
        .fold(Router::new(), |router, front| {
            let answer = get(move |State(node), Path((name, _)): Path<(String, String)>, parts: Parts| {
                answer(node, front, name, parts)
            });
            let answer = answer.fallback(HttpError::only_read);
            router.route(&format!("/{}/{{upstream}}/{{*path}}", front.kind.as_str()), answer)
        })
        .with_state(node.clone())
        .merge(oci::router(node))
}

/// Begins to bring what a request's target names, if it never changes: what may change is asked for as the
/// request says, which is not known yet.
pub(super) fn set_out(node: &Node, target: &str) -> Option<Object> {
    let (front, upstream, path) = match target.strip_prefix('/') {
        Some(path) => {
            let mut parts = path.splitn(3, '/');
            let (kind, name, path) = (parts.next()?, parts.next()?, parts.next()?);
            let front = FRONTS.into_iter().find(|front| front.kind.as_str() == kind)?;
            (front, node.upstream(name).filter(|upstream| upstream.kind == front.kind)?, path.to_owned())
        }
        None => {
            let (upstream, path) = proxy::found(node, &target.parse().ok()?)?;
            (APT, upstream, path)
        }
    };
    let (path, seal) = ((front.path)(&path).ok()?, Seal::new(node.site_secret("links to files")));
    let asked = Asked { upstream: &upstream, path: &path, accept: None, base: "", seal: &seal };
    match (front.route)(&asked).ok()? {
        Routed::Object(artifact) if artifact.wanted.expected_s.is_none() => {
            Some(node.object(artifact.wanted, artifact.front))
        }
        _ => None,
    }
}

/// What the client accepts, which it may say in several lines.
fn accepted(headers: &HeaderMap) -> Option<String> {
    let lines: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|it| it.to_str().ok()).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

async fn answer(node: Node, front: Front, name: String, request: Parts) -> Result<Response, HttpError> {
    let upstream = pkg::of_kind(node.upstream(&name), &name, front.kind)?;
    let path = (front.path)(below(&request, 2))?;
    let host = request.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1");
    let base = format!("http://{host}/{}/{name}", front.kind.as_str());
    hand_out(node, front, upstream, path, base, &request).await
}

async fn hand_out(
    node: Node,
    front: Front,
    upstream: Arc<Upstream>,
    path: pkg::Path,
    base: String,
    request: &Parts,
) -> Result<Response, HttpError> {
    let accept = accepted(&request.headers);
    let accept = accept.as_deref();
    let seal = Seal::new(node.site_secret("links to files"));
    let asked = Asked { upstream: &upstream, path: &path, accept, base: &base, seal: &seal };
    match (front.route)(&asked)? {
        Routed::Object(mut artifact) => {
            artifact.wanted.no_older_s = no_older_than(&request.headers);
            match artifact.rewrite {
                None => serve(node, artifact, login(&request.headers), request).await,
                Some(rewrite) => {
                    let accept = accept.map(str::to_owned);
                    let make = move |text: &[u8]| {
                        let accept = accept.as_deref();
                        let asked =
                            Asked { upstream: &upstream, path: &path, accept, base: &base, seal: &seal };
                        rewrite(&asked, text)
                    };
                    rewritten::serve(node, artifact, request, make).await
                }
            }
        }
        Routed::Via { text, then } => {
            let found = move |text: &[u8]| then(&upstream, &path, text);
            let login = login(&request.headers);
            let (_, _, artifact) = rewritten::read(node.clone(), text, login.clone(), found).await?;
            serve(node, artifact, login, request).await
        }
        Routed::Text { status, headers, body } => {
            let mut named = HeaderMap::new();
            for (name, value) in headers {
                insert(&mut named, HeaderName::from_static(name), &value);
            }
            Ok((StatusCode::from_u16(status).unwrap_or(StatusCode::OK), named, body).into_response())
        }
    }
}

/// With what the client would be known to the upstream.
fn login(headers: &HeaderMap) -> Option<Credentials> {
    Credentials::verbatim(headers.get(header::AUTHORIZATION)?.to_str().ok()?)
}

/// How long ago its upstream may have been asked, by what the client says, in seconds.
fn no_older_than(headers: &HeaderMap) -> Option<u64> {
    let said = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let limit = |directive: &str| match directive.trim().to_ascii_lowercase().split_once('=') {
        Some(("max-age", seconds)) => seconds.parse().ok(),
        None if directive.trim().eq_ignore_ascii_case("no-cache") => Some(0),
        _ => None,
    };
    let asked = said(header::CACHE_CONTROL).or_else(|| said(header::PRAGMA))?;
    asked.split(',').filter_map(limit).min()
}

/// The path below so many leading parts, as it was sent.
fn below(request: &Parts, parts: usize) -> &str {
    let sent = request.uri.path_and_query().map_or("", |sent| sent.as_str());
    sent.splitn(parts + 2, '/').nth(parts + 1).unwrap_or_default()
}

async fn serve(
    node: Node,
    artifact: Artifact,
    login: Option<Credentials>,
    request: &Parts,
) -> Result<Response, HttpError> {
    let (object, record, came) = node.object_for(artifact.wanted, artifact.front, login).await?;
    let etag = record.header("etag").unwrap_or_default().to_owned();
    let mut headers = describe(&record, came, &artifact.headers);
    if is_known(&request.headers, &record, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    if let Some(ask) = by_recipe::asked(request)
        && let Some(found) = node.by_recipe(object.wanted(), &ask, artifact.front).await
    {
        return Ok(by_recipe::answer(found, headers));
    }
    let (status, part) = part(&request.headers, record.size, &etag, &mut headers);
    if status == StatusCode::RANGE_NOT_SATISFIABLE || request.method == Method::HEAD {
        return Ok((status, headers).into_response());
    }
    body(object, part, status, headers).await
}

/// Which part is asked for, and what is said of it.
fn part(
    asked: &HeaderMap,
    size: Option<u64>,
    etag: &str,
    headers: &mut HeaderMap,
) -> (StatusCode, Range<u64>) {
    let Some(size) = size else { return (StatusCode::OK, 0..END) };
    // A part of it may be asked for on condition of the `ETag`, or of the date.
    let date = headers.get(header::LAST_MODIFIED).filter(|date| asked.get(header::IF_RANGE) == Some(date));
    let validator = date.and_then(|date| date.to_str().ok()).unwrap_or(etag);
    let (status, part) = match range::wanted(asked, size, validator) {
        Wanted::Whole => (StatusCode::OK, 0..size),
        Wanted::Part(part) => {
            insert(headers, header::CONTENT_RANGE, &format!("bytes {}-{}/{size}", part.start, part.end - 1));
            (StatusCode::PARTIAL_CONTENT, part)
        }
        Wanted::Unsatisfiable => {
            insert(headers, header::CONTENT_RANGE, &format!("bytes */{size}"));
            return (StatusCode::RANGE_NOT_SATISFIABLE, 0..0);
        }
    };
    insert(headers, header::CONTENT_LENGTH, &(part.end - part.start).to_string());
    (status, part)
}

/// The first bytes before the header, so that a failure has a status of its own.
async fn body(
    mut object: Object,
    mut part: Range<u64>,
    status: StatusCode,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let first = object.next(&mut part).await?;
    let more = stream::try_unfold((object, part), async |(mut object, mut part)| {
        let piece = object.next(&mut part).await?;
        Ok::<_, ObjectError>(piece.map(|piece| (piece, (object, part))))
    });
    let body = stream::iter(first.map(Ok)).chain(more);
    Ok((status, headers, Body::from_stream(body)).into_response())
}

/// Whether the client has what is called so.
fn is_known_as(headers: &HeaderMap, etag: &str) -> bool {
    !etag.is_empty() && range::is_known(headers, etag.trim_start_matches("W/"))
}

/// Whether the client has it already.
fn is_known(headers: &HeaderMap, record: &Arc<Record>, etag: &str) -> bool {
    if headers.contains_key(header::IF_NONE_MATCH) {
        return is_known_as(headers, etag);
    }
    let date = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|date| date.timestamp());
    let since = headers.get(header::IF_MODIFIED_SINCE).and_then(|since| date(since.to_str().ok()?));
    let modified = record.header("last-modified").and_then(date);
    matches!((since, modified), (Some(since), Some(modified)) if modified <= since)
}

/// What the upstream said of it, and where it came from now.
fn describe(record: &Record, came: Came, instead: &[(&'static str, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &record.headers {
        if let Ok(name) = HeaderName::try_from(name.as_str()) {
            insert(&mut headers, name, value);
        }
    }
    for (name, value) in instead {
        insert(&mut headers, HeaderName::from_static(name), value);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_say_how_new_it_has_to_be() {
        let asked = |name: HeaderName, value: &'static str| {
            no_older_than(&HeaderMap::from_iter([(name, HeaderValue::from_static(value))]))
        };
        assert_eq!(asked(header::CACHE_CONTROL, "max-age=0"), Some(0));
        assert_eq!(asked(header::CACHE_CONTROL, "Max-Age=90, no-transform"), Some(90));
        assert_eq!(asked(header::CACHE_CONTROL, "max-age=5, No-Cache"), Some(0));
        assert_eq!(asked(header::PRAGMA, "no-cache"), Some(0));
        for nothing in ["no-store", "max-age=x", "", ",=,", "max-age", "max-age=-1"] {
            assert_eq!(asked(header::CACHE_CONTROL, nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_part_may_depend_on_the_date() {
        let date = "Wed, 25 Nov 2026 10:00:00 GMT";
        let of = |condition: &'static str| {
            let asked = [(header::RANGE, "bytes=5-"), (header::IF_RANGE, condition)];
            let asked = asked.map(|(name, value)| (name, HeaderValue::from_static(value)));
            let mut headers = HeaderMap::from_iter([(header::LAST_MODIFIED, HeaderValue::from_static(date))]);
            part(&HeaderMap::from_iter(asked), Some(10), "\"e\"", &mut headers)
        };
        assert_eq!(of(date), (StatusCode::PARTIAL_CONTENT, 5..10));
        assert_eq!(of("\"e\""), (StatusCode::PARTIAL_CONTENT, 5..10));
        assert_eq!(of("Wed, 25 Nov 2026 10:00:01 GMT"), (StatusCode::OK, 0..10));
    }
}
