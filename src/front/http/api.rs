//! `/api/v1`: facts as JSON. The shapes are those of [`crate::node::report`].

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::de::IntoDeserializer;
use serde::{Deserialize, Deserializer};

use super::admin::Body;
use super::error::HttpError;
use super::span;
use crate::core::id::PackageName;
use crate::node::Node;
use crate::node::doctor::Checkup;
use crate::node::errands::AllOrders;
use crate::node::report::{
    Audits, By, Flight, Health, History, Package, Peer, Savings, Scope, Site, Status, UpstreamFacts, Weighed,
};

/// Who looks at the site sees it as it was at most so long ago: many who look ask once.
const SITE_AGE: Duration = Duration::from_secs(2);
/// Nobody needs a site that is older, and answers are not kept for longer.
const MOST_AGE: u64 = 10;

pub(super) async fn readiness(State(node): State<Node>) -> impl IntoResponse {
    if node.is_ready() { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "starting\n") }
}

pub(super) async fn status(State(node): State<Node>) -> Json<Status> {
    Json(node.status().await)
}

pub(super) async fn peers(State(node): State<Node>) -> Json<Vec<Peer>> {
    Json(node.peers())
}

pub(super) async fn packages(State(node): State<Node>) -> Json<Vec<Package>> {
    Json(node.packages())
}

pub(super) async fn history(
    State(node): State<Node>,
    Path(name): Path<PackageName>,
) -> Result<Json<History>, HttpError> {
    let known = node.history(&name);
    known.map(Json).ok_or_else(|| HttpError::not_found(format!("there is no package {name} in the catalog")))
}

pub(super) async fn flights(State(node): State<Node>) -> Json<Vec<Flight>> {
    Json(node.flights())
}

/// What may be asked of the site.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SiteQuery {
    /// So many packages are named for each node; all, if nothing is said.
    holds: Option<usize>,
}

pub(super) async fn site(
    State(node): State<Node>,
    query: Result<Query<SiteQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Site>, HttpError> {
    let Query(query) = query.map_err(|error| HttpError::bad_request(error.body_text()))?;
    Ok(Json(node.site(SITE_AGE, query.holds.unwrap_or(usize::MAX)).await))
}

pub(super) async fn orders(State(node): State<Node>) -> Json<AllOrders> {
    Json(node.all_orders())
}

pub(super) async fn upstreams(State(node): State<Node>) -> Json<Vec<UpstreamFacts>> {
    Json(node.upstream_facts())
}

pub(super) async fn health(State(node): State<Node>) -> Json<Health> {
    Json(node.health().await)
}

/// A body of JSON, so that no page of another site can have a browser ask for it.
pub(super) async fn doctor(State(node): State<Node>, Body(()): Body<()>) -> Json<Checkup> {
    Json(node.checkup().await)
}

/// What may be asked of what was weighed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecipesQuery {
    #[serde(default)]
    scope: Scope,
    /// As `NAME@VERSION`.
    package: Option<String>,
}

pub(super) async fn recipes(
    State(node): State<Node>,
    query: Result<Query<RecipesQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Vec<Weighed>>, HttpError> {
    let Query(query) = query.map_err(|error| HttpError::bad_request(error.body_text()))?;
    Ok(Json(node.weighed(query.scope, query.package.as_deref()).await))
}

/// What may be asked of the savings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavingsQuery {
    #[serde(default)]
    scope: Scope,
    #[serde(default)]
    by: By,
    /// More groupings of the same books, such as `day,reason`.
    #[serde(default)]
    also: Also,
    /// A span that ends now, such as `7d` or `24h`.
    since: Option<String>,
    /// The first day or time, such as `2026-11-01` or `2026-11-01T08:00:00Z`.
    from: Option<String>,
    /// The last day, or the time at which it ends.
    to: Option<String>,
    /// How many seconds old the books of other nodes may be: what looks again and again need not ask
    /// the whole site each time.
    #[serde(default)]
    max_age: u64,
}

/// Groupings, with commas between them.
#[derive(Debug, Default)]
struct Also(Vec<By>);

impl<'de> Deserialize<'de> for Also {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let mut all = Vec::new();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            let by = By::deserialize(IntoDeserializer::<D::Error>::into_deserializer(word))?;
            // Each once: what is asked for twice costs no more.
            if !all.contains(&by) {
                all.push(by);
            }
        }
        Ok(Self(all))
    }
}

pub(super) async fn savings(
    State(node): State<Node>,
    query: Result<Query<SavingsQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Savings>, HttpError> {
    let Query(query) = query.map_err(|error| HttpError::bad_request(error.body_text()))?;
    let hours = span::hours(query.since.as_deref(), query.from.as_deref(), query.to.as_deref());
    let hours = hours.map_err(HttpError::bad_request)?;
    let max_age = Duration::from_secs(query.max_age.min(MOST_AGE));
    Ok(Json(node.savings(query.scope, query.by, &query.also.0, hours, max_age).await))
}

/// What may be asked of an audit.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    #[serde(default)]
    scope: Scope,
}

pub(super) async fn audit(
    State(node): State<Node>,
    query: Result<Query<AuditQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Audits>, HttpError> {
    let Query(query) = query.map_err(|error| HttpError::bad_request(error.body_text()))?;
    Ok(Json(node.audit(query.scope).await))
}

pub(super) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("openapi.json"))
}

#[cfg(test)]
mod tests {
    use crate::core::ledger::Totals;

    #[test]
    fn every_figure_is_described() {
        let api: serde_json::Value = serde_json::from_str(include_str!("openapi.json")).expect("JSON");
        let totals = api["components"]["schemas"]["Totals"]["properties"].as_object().expect("figures");
        assert_eq!(totals.len(), Totals::NAMES.len());
        assert!(Totals::NAMES.iter().all(|name| totals.contains_key(*name)));
    }
}
