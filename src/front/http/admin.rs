//! `POST /api/v1/admin/...`: what admins order. On the admin socket alone, whose file says who may.

use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::HttpError;
use super::windows;
use crate::core::bitrate::Rate;
use crate::core::orders::{Seed, Selector};
use crate::node::errands::{Errand, Outcomes};
use crate::node::hook::HookResult;
use crate::node::{Gc, Node};

/// The longest order, in bytes.
const LONGEST: usize = 128 << 10;

pub(super) fn router(node: Node) -> Router {
    Router::new()
        .route("/api/v1/admin/seed", post(seed))
        .route("/api/v1/admin/pin", post(pin))
        .route("/api/v1/admin/unpin", post(unpin))
        .route("/api/v1/admin/evict", post(evict))
        .route("/api/v1/admin/wan", post(windows::order))
        .route("/api/v1/admin/verify", post(verify))
        .route("/api/v1/admin/verified", post(verified))
        .route("/api/v1/admin/gc", post(gc))
        .route("/api/v1/admin/hooks", get(hooks))
        .route("/api/v1/admin/hook", post(hook))
        .layer(DefaultBodyLimit::max(LONGEST))
        .with_state(node)
}

/// A body of JSON; what is wrong with it is told as everything else is.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = HttpError;

    async fn from_request(request: Request, state: &S) -> Result<Self, HttpError> {
        match Json::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(error) => Err(HttpError::bad_request(error.body_text())),
        }
    }
}

/// An errand about one package.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfPackage {
    /// Which.
    pub package: Selector,
    /// At every node of the site.
    #[serde(default)]
    pub site: bool,
    /// Who wants it, for people.
    #[serde(default)]
    pub by: String,
}

/// What a site is to keep.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedOrder {
    /// Which package.
    pub package: Selector,
    /// How; nothing: it is kept no more.
    pub seed: Option<Seed>,
    /// Who wants it, for people.
    #[serde(default)]
    pub by: String,
}

async fn seed(State(node): State<Node>, Body(order): Body<SeedOrder>) -> Result<Json<Outcomes>, HttpError> {
    Ok(Json(node.order_seed(order.by, order.package, order.seed).await?))
}

async fn pin(State(node): State<Node>, Body(order): Body<OfPackage>) -> Result<Json<Outcomes>, HttpError> {
    Ok(Json(node.order_pin(order.by, order.package, true, order.site).await?))
}

async fn unpin(State(node): State<Node>, Body(order): Body<OfPackage>) -> Result<Json<Outcomes>, HttpError> {
    Ok(Json(node.order_pin(order.by, order.package, false, order.site).await?))
}

async fn evict(State(node): State<Node>, Body(wanted): Body<OfPackage>) -> Json<Outcomes> {
    run(&node, Errand::Evict { package: wanted.package }, wanted.site).await
}

/// What to read back.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyOrder {
    /// One package; all that is held, if none is said.
    #[serde(default)]
    pub package: Option<Selector>,
    /// No faster.
    #[serde(default)]
    pub rate: Option<Rate>,
    /// At every node of the site.
    #[serde(default)]
    pub site: bool,
    /// Who wants it, for people.
    #[serde(default)]
    pub by: String,
}

/// At this node, or at all of the site.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfSite {
    /// At every node of the site.
    #[serde(default)]
    pub site: bool,
}

/// What to free.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GcOrder {
    /// How much, and whether to do it.
    #[serde(default)]
    pub gc: Gc,
    /// At every node of the site.
    #[serde(default)]
    pub site: bool,
    /// Who wants it, for people.
    #[serde(default)]
    pub by: String,
}

/// What to run the hook for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookOrder {
    /// Which package.
    pub package: Selector,
}

async fn verify(State(node): State<Node>, Body(wanted): Body<VerifyOrder>) -> Json<Outcomes> {
    run(&node, Errand::Verify { package: wanted.package, rate: wanted.rate }, wanted.site).await
}

async fn verified(State(node): State<Node>, Body(wanted): Body<OfSite>) -> Json<Outcomes> {
    run(&node, Errand::Verified, wanted.site).await
}

async fn gc(State(node): State<Node>, Body(wanted): Body<GcOrder>) -> Json<Outcomes> {
    run(&node, Errand::Gc(wanted.gc), wanted.site).await
}

async fn hooks(State(node): State<Node>) -> Json<Vec<HookResult>> {
    Json(node.hooks().results())
}

async fn hook(State(node): State<Node>, Body(wanted): Body<HookOrder>) -> Json<Outcomes> {
    let outcome = node.run_hook(&wanted.package).await;
    Json(Outcomes { nodes: vec![outcome], unanswered: Vec::new() })
}

async fn run(node: &Node, errand: Errand, site: bool) -> Json<Outcomes> {
    if site {
        return Json(node.run_everywhere(errand).await);
    }
    Json(Outcomes { nodes: vec![node.run(errand).await], unanswered: Vec::new() })
}
