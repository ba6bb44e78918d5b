//! `/`: where to look.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use crate::node::Node;

const PAGE: &str = include_str!("page.html");

pub(super) async fn index(State(node): State<Node>) -> impl IntoResponse {
    let status = node.status();
    let page = PAGE
        .replace("{site}", &status.site)
        .replace("{node}", &status.node)
        .replace("{members}", &status.members.to_string())
        .replace("{version}", &status.version);
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
    ];
    (headers, page)
}
