//! `GET /api/v1/events`: what changes, as server-sent events, until the client goes or the agent stops.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use tokio_util::sync::CancellationToken;

use super::error::HttpError;
use crate::node::Node;
use crate::node::report::MOST_WATCHERS;

/// A comment that often keeps whatever lies between from taking the line for dead.
const BEAT: Duration = Duration::from_secs(15);

pub(super) async fn events(
    State((node, stop)): State<(Node, CancellationToken)>,
) -> Result<Response, HttpError> {
    let many = || {
        HttpError::busy(format!("{MOST_WATCHERS} clients watch already; close some, or ask /api/v1/flights"))
    };
    let watcher = node.watch().ok_or_else(many)?;
    // The node must not be kept from ending by those who watch it.
    drop(node);
    let events = stream::unfold((watcher, stop), |(mut watcher, stop)| async move {
        let (name, json) = stop.run_until_cancelled(watcher.next()).await??;
        Some((Ok::<_, Infallible>(Event::default().event(name).data(&*json)), (watcher, stop)))
    });
    let answer = Sse::new(events).keep_alive(KeepAlive::new().interval(BEAT));
    Ok(([(header::X_CONTENT_TYPE_OPTIONS, "nosniff")], answer).into_response())
}
