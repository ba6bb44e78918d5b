//! `/v2/`: container registries over HTTP.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use serde::Deserialize;

use super::super::error::{HttpError, LOGIN};
use super::oci_login::{Logins, UnknownToken, challenge};
use super::{accepted, below, describe, insert, is_known_as, login};
use crate::core::ledger::Front;
use crate::front::pkg::named::Seal;
use crate::front::pkg::oci::{self, Found, Item, Refusal};
use crate::front::pkg::{self, Artifact, Asked};
use crate::node::Node;
use crate::node::upstream::Came;
use crate::origin::upstream::{Credentials, Kind, Upstream};

/// Manifests are shorter: registries themselves take no longer ones, in bytes.
const LONGEST: u64 = 8 << 20;
const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

pub(super) fn router(node: Node) -> Router {
    let registry = Registry { node, logins: Arc::default() };
    Router::new()
        .route("/v2", any(root))
        .route("/v2/", any(root))
        .route("/v2/token", get(token))
        .route("/v2/{*path}", any(answer))
        .with_state(registry)
}

/// The registry that the gateway is.
#[derive(Clone)]
struct Registry {
    node: Node,
    logins: Arc<Logins>,
}

impl Registry {
    /// Tools are asked to log in.
    fn wants_logins(&self) -> bool {
        self.node.upstreams().any(|upstream| upstream.logins)
    }

    fn login(&self, request: &Parts) -> Result<Option<Credentials>, Refusal> {
        if !self.wants_logins() {
            return Ok(login(&request.headers));
        }
        let unknown = |UnknownToken| {
            Refusal::of_status(401, None, "that token is not known here any more: ask for another".into())
        };
        self.logins.of(&request.headers).map_err(unknown)
    }

    /// As every answer is: it says which protocol this is, and who is not let in, how to log in.
    fn finish(&self, request: &Parts, answer: Result<Response, Refusal>) -> Response {
        let mut response = answer.into_response();
        let version = HeaderName::from_static("docker-distribution-api-version");
        response.headers_mut().insert(version, HeaderValue::from_static("registry/2.0"));
        let anybody = || self.wants_logins() && self.login(request).is_ok_and(|login| login.is_none());
        if response.status() == StatusCode::FORBIDDEN && anybody() {
            // A login may be all that is missing, and tools ask for one after a 401 alone.
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        if response.status() == StatusCode::UNAUTHORIZED && self.wants_logins() {
            let challenge = challenge(&request.headers);
            challenge.and_then(|it| response.headers_mut().insert(header::WWW_AUTHENTICATE, it));
        }
        response
    }
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
        if self.status == 401 {
            headers.insert(header::WWW_AUTHENTICATE, LOGIN);
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

/// Whether there is a registry here, and who may ask it.
async fn root(State(registry): State<Registry>, request: Parts) -> Response {
    let is_there = || {
        is_read(&request.method)?;
        oci::any_of(&upstreams(&registry.node))?;
        registry.login(&request)?;
        if registry.wants_logins() && !request.headers.contains_key(header::AUTHORIZATION) {
            return Err(Refusal::of_status(401, None, "ask for a token, with a login or without".into()));
        }
        Ok(([(header::CONTENT_TYPE, "application/json")], "{}").into_response())
    };
    registry.finish(&request, is_there())
}

/// A token for who asks. A login that is good nowhere is told at once, and not at the first pull.
async fn token(State(registry): State<Registry>, request: Parts) -> Response {
    let answer = match login(&request.headers) {
        Some(login) if !registry.node.is_good_login(Kind::Oci, &login).await => {
            Err(Refusal::of_status(401, None, "no upstream that clients log in to knows this login".into()))
        }
        _ => Ok(registry.logins.give(&request.headers)),
    };
    registry.finish(&request, answer)
}

fn upstreams(node: &Node) -> Vec<Arc<Upstream>> {
    node.upstreams().cloned().collect()
}

fn is_read(method: &Method) -> Result<(), Refusal> {
    if matches!(*method, Method::GET | Method::HEAD) { Ok(()) } else { Err(Refusal::read_only()) }
}

async fn answer(
    State(registry): State<Registry>,
    query: Result<Query<Meant>, QueryRejection>,
    request: Parts,
) -> Response {
    let ns = query.ok().and_then(|Query(meant)| meant.ns);
    let answer = match registry.login(&request) {
        Ok(login) => find_and_serve(registry.node.clone(), ns.as_deref(), login, &request).await,
        Err(refusal) => Err(refusal),
    };
    registry.finish(&request, answer)
}

async fn find_and_serve(
    node: Node,
    ns: Option<&str>,
    login: Option<Credentials>,
    request: &Parts,
) -> Result<Response, Refusal> {
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
        Item::Manifest => manifest(node, found, login, request).await,
        Item::Blob if request.method == Method::HEAD => about(node, found.artifact, login).await,
        Item::Blob => super::serve(node, found.artifact, login, request).await,
        Item::List => list(node, found, ns, login, request).await,
    };
    answer.map_err(refused(Some(item)))
}

/// A blob is large: whoever asks how large does not make it come.
async fn about(node: Node, artifact: Artifact, login: Option<Credentials>) -> Result<Response, HttpError> {
    let record = node.about_object(artifact.wanted, Front::Oci, login).await?;
    let came = if record.complete { Came::Held } else { Came::Checked };
    let mut headers = describe(&record, came, &artifact.headers);
    if let Some(size) = record.size {
        insert(&mut headers, header::CONTENT_LENGTH, &size.to_string());
    }
    Ok((StatusCode::OK, headers).into_response())
}

/// A manifest is short, and read whole: its digest and its kind are said with it, whatever its upstream
/// says.
async fn manifest(
    node: Node,
    found: Found,
    login: Option<Credentials>,
    request: &Parts,
) -> Result<Response, HttpError> {
    let (mut object, _, came) = node.object_for(found.artifact.wanted, found.artifact.front, login).await?;
    let wanted = object.wanted().clone();
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
async fn list(
    node: Node,
    found: Found,
    ns: Option<&str>,
    login: Option<Credentials>,
    request: &Parts,
) -> Result<Response, HttpError> {
    let mut response = super::serve(node, found.artifact, login, request).await?;
    if let Some(link) = response.headers_mut().remove(header::LINK) {
        let next = link.to_str().ok().and_then(|link| oci::next_of(link, &found.list, ns));
        next.iter().for_each(|next| insert(response.headers_mut(), header::LINK, next));
    }
    Ok(response)
}
