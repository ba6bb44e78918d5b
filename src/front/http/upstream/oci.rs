//! `/v2/`: container registries over HTTP.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde::Deserialize;

use super::super::error::HttpError;
use super::{accepted, below, describe, insert, is_known_as};
use crate::core::ledger::Front;
use crate::front::pkg::named::Seal;
use crate::front::pkg::oci::{self, Found, Item, Refusal};
use crate::front::pkg::{self, Artifact, Asked};
use crate::node::Node;
use crate::node::upstream::Came;
use crate::origin::upstream::Upstream;

/// Manifests are shorter: registries themselves take no longer ones, in bytes.
const LONGEST: u64 = 8 << 20;
const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

pub(super) fn router(node: Node) -> Router {
    Router::new()
        .route("/v2", any(root))
        .route("/v2/", any(root))
        .route("/v2/{*path}", any(answer))
        .with_state(node)
}

/// What else is asked with a path.
#[derive(Debug, Default, Deserialize)]
struct Meant {
    /// containerd: the registry's name.
    ns: Option<String>,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut headers = HeaderMap::new();
        insert(&mut headers, header::CONTENT_TYPE, "application/json");
        insert(&mut headers, header::CACHE_CONTROL, "no-store");
        if self.status == 405 {
            insert(&mut headers, header::ALLOW, "GET, HEAD");
        }
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, headers, self.body()).into_response()
    }
}

fn refused(item: Option<Item>) -> impl Fn(HttpError) -> Refusal {
    move |error| {
        let (status, text) = error.into_parts();
        Refusal::of_status(status.as_u16(), item, text)
    }
}

/// Every answer says which protocol this is.
fn versioned(answer: Result<Response, Refusal>) -> Response {
    let mut response = answer.into_response();
    let version = HeaderName::from_static("docker-distribution-api-version");
    response.headers_mut().insert(version, HeaderValue::from_static("registry/2.0"));
    response
}

/// Whether there is a registry here.
async fn root(State(node): State<Node>, method: Method) -> Response {
    let is_there = is_read(&method).and_then(|()| oci::any_of(&upstreams(&node)));
    versioned(is_there.map(|()| ([(header::CONTENT_TYPE, "application/json")], "{}").into_response()))
}

fn upstreams(node: &Node) -> Vec<Arc<Upstream>> {
    node.upstreams().cloned().collect()
}

fn is_read(method: &Method) -> Result<(), Refusal> {
    if matches!(*method, Method::GET | Method::HEAD) { Ok(()) } else { Err(Refusal::read_only()) }
}

async fn answer(
    State(node): State<Node>,
    query: Result<Query<Meant>, QueryRejection>,
    request: Parts,
) -> Response {
    let ns = query.ok().and_then(|Query(meant)| meant.ns);
    versioned(find_and_serve(node, ns.as_deref(), &request).await)
}

async fn find_and_serve(node: Node, ns: Option<&str>, request: &Parts) -> Result<Response, Refusal> {
    is_read(&request.method)?;
    let path = pkg::Path::parse(below(request, 1)).map_err(|error| refused(None)(error.into()))?;
    let (upstream, rest) = oci::upstream_of(&upstreams(&node), path.as_str(), ns)?;
    let base = match path.as_str().strip_suffix(rest).map(|named| named.trim_end_matches('/')) {
        Some("") | None => "/v2".to_owned(),
        Some(named) => format!("/v2/{named}"),
    };
    let rest = pkg::Path::parse(rest).map_err(|error| refused(None)(error.into()))?;
    let accept = accepted(&request.headers);
    let seal = Seal::new(node.site_secret("links to files"));
    let asked =
        Asked { upstream: &upstream, path: &rest, accept: accept.as_deref(), base: &base, seal: &seal };
    let found = oci::route(&asked)?;
    let item = found.item;
    let answer = match item {
        Item::Manifest => manifest(node, found, request).await,
        Item::Blob if request.method == Method::HEAD => about(node, found.artifact).await,
        Item::Blob => super::serve(node, found.artifact, request).await,
        Item::List => list(node, found, ns, request).await,
    };
    answer.map_err(refused(Some(item)))
}

/// A blob is large: whoever asks how large does not make it come.
async fn about(node: Node, artifact: Artifact) -> Result<Response, HttpError> {
    let record = node.about_object(artifact.wanted, Front::Oci).await?;
    let came = if record.complete { Came::Held } else { Came::Checked };
    let mut headers = describe(&record, came, &artifact.headers);
    if let Some(size) = record.size {
        insert(&mut headers, header::CONTENT_LENGTH, &size.to_string());
    }
    Ok((StatusCode::OK, headers).into_response())
}

/// A manifest is short, and read whole: its digest and its kind are said with it, whatever its upstream
/// says.
async fn manifest(node: Node, found: Found, request: &Parts) -> Result<Response, HttpError> {
    let wanted = found.artifact.wanted;
    let mut object = node.object(wanted.clone(), found.artifact.front);
    let (_, came) = object.about().await?;
    let (mut text, mut range) = (Vec::new(), 0..LONGEST);
    while let Some(bytes) = object.next(&mut range).await? {
        text.extend_from_slice(&bytes);
    }
    if range.is_empty() {
        return Err(HttpError::bad_gateway(format!("{} is longer than {LONGEST} bytes", wanted.path)));
    }
    let (record, _) = object.about().await?;
    let digest = oci::digest_of(&text, found.digest.as_ref());
    if found.digest.is_none() {
        // Those who have seen the tag ask for it by its digest next.
        node.note_digest(wanted, digest, &record).await;
    }
    let mut headers = describe(&record, came, &[]);
    headers.remove(header::ACCEPT_RANGES);
    let etag = format!("\"{digest}\"");
    insert(&mut headers, header::ETAG, &etag);
    insert(&mut headers, DIGEST, &digest.to_string());
    insert(&mut headers, header::CONTENT_TYPE, &oci::kind_of(&text, record.header("content-type")));
    if is_known_as(&request.headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    insert(&mut headers, header::CONTENT_LENGTH, &text.len().to_string());
    if request.method == Method::HEAD {
        return Ok((StatusCode::OK, headers).into_response());
    }
    Ok((StatusCode::OK, headers, text).into_response())
}

/// A list, of which the next part is here too.
async fn list(node: Node, found: Found, ns: Option<&str>, request: &Parts) -> Result<Response, HttpError> {
    let mut response = super::serve(node, found.artifact, request).await?;
    if let Some(link) = response.headers_mut().remove(header::LINK) {
        let next = link.to_str().ok().and_then(|link| oci::next_of(link, &found.list, ns));
        next.iter().for_each(|next| insert(response.headers_mut(), header::LINK, next));
    }
    Ok(response)
}
