//! Whether the foreign repositories are reached that clients may fetch from.

use std::time::Duration;

use futures::future::join_all;

use super::{Check, some};
use crate::node::Node;
use crate::origin::upstream::{Fetch, UpstreamError};

const TEST: &str = "upstreams";
const PATIENCE: Duration = Duration::from_secs(25);

/// Nothing where there are none.
pub(super) async fn check(node: &Node) -> Option<Check> {
    let asked = node.inner.upstreams.clients().map(|(name, client)| async move {
        let head = Fetch { head: true, ..Fetch::default() };
        let answer = tokio::time::timeout(PATIENCE, client.get(&head)).await;
        (
            name.clone(),
            answer.map_or_else(
                |_| Some(format!("it said nothing for {} s", PATIENCE.as_secs())),
                |it| trouble(it.err()),
            ),
        )
    });
    let (out, ok): (Vec<_>, Vec<_>) = join_all(asked).await.into_iter().partition(|(_, why)| why.is_some());
    let names = |all: &[(String, Option<String>)]| {
        some(&all.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>())
    };
    let Some((first, Some(why))) = out.first() else {
        return (!ok.is_empty()).then(|| Check::passed(TEST, format!("{} answer: {}", ok.len(), names(&ok))));
    };
    let seen = format!("{} of {} do not answer: {}", out.len(), out.len() + ok.len(), names(&out));
    let remedy =
        format!("Try its address from this machine with curl; correct the line of {first} under 'upstream'.");
    Some(Check::failed(TEST, seen, format!("{first}: {why}."), remedy))
}

/// Whoever says anything of sense is there: few have something at the root of their tree.
fn trouble(error: Option<UpstreamError>) -> Option<String> {
    match error? {
        UpstreamError::Status { status, .. } if status < 500 => None,
        UpstreamError::Status { status, .. } => Some(format!("it answers {status}")),
        UpstreamError::Unreachable { why, .. } => Some(why),
        UpstreamError::Redirect { .. } | UpstreamError::Wrong { .. } => None,
    }
}
