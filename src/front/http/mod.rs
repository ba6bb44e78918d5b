//! The gateway: packages, the API, metrics, the dashboard. A handler routes, asks the node, and streams.

mod admin;
mod ahead;
mod api;
mod bundle;
mod error;
mod events;
mod listen;
mod metrics;
mod packages;
mod page;
pub mod range;
pub(super) mod span;
pub mod tree;
mod upstream;
mod windows;

use axum::Router;
use axum::routing::{get, post};
use tokio_util::sync::CancellationToken;

use crate::node::Node;

pub use admin::{GcOrder, HookOrder, OfPackage, OfSite, SeedOrder, VerifyOrder};
pub use listen::{Listener, bind, bind_socket, serve};
pub use windows::{WanChange, WanOrder};

/// All that the admin socket answers: what the gateway does, orders and bundles.
pub fn admin_router(node: Node, stop: CancellationToken) -> Router {
    admin::router(node.clone()).merge(bundle::router(node.clone())).merge(paths(node, stop))
}

/// All that the gateway answers. Answers without an end end with `stop`.
pub fn router(node: Node, stop: CancellationToken) -> Router {
    upstream::proxy(node.clone(), paths(node, stop))
}

/// What the gateway does with requests that are only seen yet: upstreams' objects that never change are set
/// out for.
pub fn hint(node: Node) -> ahead::Hint {
    std::sync::Arc::new(move |target| upstream::set_out(&node, target))
}

fn paths(node: Node, stop: CancellationToken) -> Router {
    let events = get(events::events).with_state((node.clone(), stop));
    Router::new()
        .route("/", get(page::index))
        .route("/assets/{name}", get(page::asset))
        .route("/healthz", get(api::readiness))
        .route("/metrics", get(metrics::metrics))
        .route("/packages/{name}/{version}", get(packages::package))
        .route("/packages/{name}", get(packages::latest))
        .route("/api/v1/status", get(api::status))
        .route("/api/v1/peers", get(api::peers))
        .route("/api/v1/packages", get(api::packages))
        .route("/api/v1/packages/{name}/history", get(api::history))
        .route("/api/v1/flights", get(api::flights))
        .route("/api/v1/savings", get(api::savings))
        .route("/api/v1/savings/audit", get(api::audit))
        .route("/api/v1/recipes", get(api::recipes))
        .route("/api/v1/site", get(api::site))
        .route("/api/v1/health", get(api::health))
        .route("/api/v1/doctor", post(api::doctor))
        .route("/api/v1/events", events)
        .route("/api/v1/wan", get(windows::show))
        .route("/api/v1/orders", get(api::orders))
        .route("/api/v1/upstreams", get(api::upstreams))
        .route("/api/v1/openapi.json", get(api::openapi))
        .fallback(error::no_such_path)
        .with_state(node.clone())
        .merge(upstream::router(node))
}
