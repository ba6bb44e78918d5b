//! `/metrics`, in the Prometheus text format.

use std::fmt::Write;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use crate::node::Node;

pub(super) async fn metrics(State(node): State<Node>) -> impl IntoResponse {
    let totals = node.books().totals();
    let status = node.status();
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, samples: &[(&str, u64)]| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP branchline_{name} {help}\n# TYPE branchline_{name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "branchline_{name}{labels} {value}");
        }
    };
    let delivered = [
        ("{source=\"wan\"}", totals.wan),
        ("{source=\"peer\"}", totals.peer),
        ("{source=\"local\"}", totals.local),
    ];
    metric(
        "delivered_bytes_total",
        "counter",
        "Content handed to clients, by where it came from.",
        &delivered,
    );
    let preloaded =
        [("{source=\"wan\"}", totals.preloaded_wan), ("{source=\"peer\"}", totals.preloaded_peer)];
    metric("preloaded_bytes_total", "counter", "Content fetched with no client waiting.", &preloaded);
    metric("wan_wire_bytes_total", "counter", "Bytes read from WAN connections.", &[("", totals.wan_wire)]);
    metric(
        "wan_duplicate_bytes_total",
        "counter",
        "Content that crossed the WAN although the site held it.",
        &[("", totals.wan_duplicate)],
    );
    metric("members", "gauge", "Connected members of the site.", &[("", status.members as u64)]);
    metric("flights", "gauge", "Flights under way.", &[("", status.flights.len() as u64)]);
    metric("store_bytes", "gauge", "Bytes that blobs take.", &[("", status.store.bytes)]);
    metric("store_quota_bytes", "gauge", "The most that they may take.", &[("", status.store.quota)]);
    metric("catalog_version", "gauge", "The version of the catalog.", &[("", status.catalog.version)]);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}
