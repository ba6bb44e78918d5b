//! Texts of upstreams that are made to lead back to the gateway.

use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::super::error::HttpError;
use super::{describe, insert, is_known_as, login, part};
use crate::core::upstream::record::Record;
use crate::front::pkg::Artifact;
use crate::node::Node;
use crate::node::upstream::Came;
use crate::origin::upstream::Credentials;

/// The longest text that is rewritten, in bytes.
const LONGEST: u64 = 128 << 20;

/// Reads the whole text and makes something of it.
pub(super) async fn read<T: Send + 'static>(
    node: Node,
    artifact: Artifact,
    login: Option<Credentials>,
    make: impl FnOnce(&[u8]) -> Result<T, String> + Send + 'static,
) -> Result<(Arc<Record>, Came, T), HttpError> {
    let path = artifact.wanted.path.clone();
    let (mut object, record, came) = node.object_for(artifact.wanted, artifact.front, login).await?;
    let (mut text, mut range) = (Vec::new(), 0..LONGEST);
    while let Some(bytes) = object.next(&mut range).await? {
        text.extend_from_slice(&bytes);
    }
    if range.is_empty() {
        return Err(HttpError::bad_gateway(format!("{path} is longer than {LONGEST} bytes")));
    }
    let made = tokio::task::spawn_blocking(move || make(&text)).await;
    let wrong = |why| format!("the upstream sent something for {path} that is not what belongs there: {why}");
    let made = made.map_err(|_| HttpError::internal("text"))?;
    let made = made.map_err(|why| HttpError::bad_gateway(wrong(why)))?;
    Ok((record, came, made))
}

/// Reads the whole text, and answers with what is made of it.
pub(super) async fn serve(
    node: Node,
    artifact: Artifact,
    request: &Parts,
    make: impl FnOnce(&[u8]) -> Result<Vec<u8>, String> + Send + 'static,
) -> Result<Response, HttpError> {
    let named = artifact.headers.clone();
    let (record, came, made) = read(node, artifact, login(&request.headers), make).await?;
    let mut headers = describe(&record, came, &named);
    // It is another text than the upstream's, and so has a name of its own.
    let etag = format!("\"{}\"", &blake3::hash(&made).to_hex()[..32]);
    insert(&mut headers, header::ETAG, &etag);
    headers.remove(header::LAST_MODIFIED);
    if is_known_as(&request.headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let (status, part) = part(&request.headers, Some(made.len() as u64), &etag, &mut headers);
    if status == StatusCode::RANGE_NOT_SATISFIABLE || request.method == Method::HEAD {
        return Ok((status, headers).into_response());
    }
    let made = bytes::Bytes::from(made).slice(part.start as usize..part.end as usize);
    Ok((status, headers, made).into_response())
}
