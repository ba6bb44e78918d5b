//! `/api/v1`: facts as JSON. The shapes are those of [`crate::node::report`].

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Deserialize;

use super::error::HttpError;
use crate::node::Node;
use crate::node::report::{By, Flight, Package, Peer, Savings, Scope, Status};

pub(super) async fn health(State(node): State<Node>) -> impl IntoResponse {
    if node.is_ready() { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "starting\n") }
}

pub(super) async fn status(State(node): State<Node>) -> Json<Status> {
    Json(node.status())
}

pub(super) async fn peers(State(node): State<Node>) -> Json<Vec<Peer>> {
    Json(node.peers())
}

pub(super) async fn packages(State(node): State<Node>) -> Json<Vec<Package>> {
    Json(node.packages())
}

pub(super) async fn flights(State(node): State<Node>) -> Json<Vec<Flight>> {
    Json(node.flights())
}

/// What may be asked of the savings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavingsQuery {
    #[serde(default)]
    scope: Scope,
    #[serde(default)]
    by: By,
    since: Option<String>,
}

pub(super) async fn savings(
    State(node): State<Node>,
    query: Result<Query<SavingsQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Savings>, HttpError> {
    let Query(query) = query.map_err(|error| HttpError::bad_request(error.body_text()))?;
    let hours = query.since.as_deref().map(hours).transpose().map_err(HttpError::bad_request)?;
    Ok(Json(node.savings(query.scope, query.by, hours).await))
}

/// `7d` or `24h`, in hours.
fn hours(text: &str) -> Result<u32, String> {
    let unit = |end: char, hours: u32| text.strip_suffix(end)?.parse::<u32>().ok()?.checked_mul(hours);
    unit('d', 24)
        .or_else(|| unit('h', 1))
        .ok_or_else(|| format!("{text:?} is no time span; write it like 7d or 24h"))
}

pub(super) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("openapi.json"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn spans() {
        assert_eq!(super::hours("7d"), Ok(168));
        assert_eq!(super::hours("24h"), Ok(24));
        assert!(super::hours("7").is_err() && super::hours("xd").is_err());
    }
}
