//! `/api/v1/admin/bundle`: packages that leave for a disk or come from one. On the admin socket alone.
//!
//! With `file` in the query the bundle is not in the body: it is read from or written to a regular file that
//! the client has opened and handed over with its request ([`passing`](crate::front::passing)).

use std::fs::File;

use axum::body::Body;
use axum::extract::{ConnectInfo, DefaultBodyLimit, RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;
use url::form_urlencoded;

use super::error::HttpError;
use crate::core::orders::Selector;
use crate::front::passing::Passed;
use crate::node::Node;
use crate::node::media::{News, Source};
use crate::origin::bundle::Choice;

/// Lines that wait for a client.
const LINES: usize = 16;

pub(super) fn router(node: Node) -> Router {
    Router::new()
        .route("/api/v1/admin/bundle", get(export).post(import))
        .layer(DefaultBodyLimit::disable())
        .with_state(node)
}

/// Whether a file is handed over.
const FILE: &str = "file";

fn hands_over(query: &str) -> bool {
    form_urlencoded::parse(query.as_bytes()).any(|(key, _)| key == FILE)
}

fn handed_over(passed: &Passed) -> Result<File, HttpError> {
    passed.take().ok_or_else(|| HttpError::bad_request("no regular file came with the request"))
}

/// `package=NAME@VERSION` once for each, each followed by `since=VERSION` if it is to be without that.
fn choices(query: &str) -> Result<Vec<Choice>, HttpError> {
    let mut choices: Vec<Choice> = Vec::new();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match (&*key, choices.last_mut()) {
            ("package", _) => {
                let package: Selector = value.parse().map_err(HttpError::bad_request)?;
                choices.push(Choice { package, since: None });
            }
            ("since", Some(choice)) => {
                let since = value.parse();
                choice.since = Some(since.map_err(|error| HttpError::bad_request(format!("{error}")))?);
            }
            (FILE, _) => {}
            _ => {
                return Err(HttpError::bad_request(format!(
                    "{key} means nothing here; give package and since"
                )));
            }
        }
    }
    if choices.is_empty() {
        return Err(HttpError::bad_request("which packages? Give package=NAME@VERSION"));
    }
    Ok(choices)
}

async fn export(
    State(node): State<Node>,
    ConnectInfo(passed): ConnectInfo<Passed>,
    RawQuery(query): RawQuery,
) -> Result<Response, HttpError> {
    let query = query.unwrap_or_default();
    let file = if hands_over(&query) { Some(handed_over(&passed)?) } else { None };
    let exported = node.export(&choices(&query)?).await?;
    if let Some(file) = file {
        return Ok(Json(exported.write(file).await?).into_response());
    }
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, exported.length().to_string()),
    ];
    Ok((headers, Body::from_stream(exported.stream())).into_response())
}

/// Answers once the bundle's beginning is verified, with one line of JSON for each piece of news, while
/// the rest is still on its way.
async fn import(
    State(node): State<Node>,
    ConnectInfo(passed): ConnectInfo<Passed>,
    RawQuery(query): RawQuery,
    body: Body,
) -> Result<Response, HttpError> {
    let source = match hands_over(&query.unwrap_or_default()) {
        true => Source::File(handed_over(&passed)?),
        false => Source::Stream(body.into_data_stream().map_err(Into::into).boxed()),
    };
    let import = node.begin_import(source).await?;
    let (news, mut told) = mpsc::channel::<News>(LINES);
    tokio::spawn(import.run(news));
    let lines = futures::stream::poll_fn(move |cx| told.poll_recv(cx)).map(|news| {
        let mut line = serde_json::to_vec(&news)?;
        line.push(b'\n');
        Ok::<_, serde_json::Error>(Bytes::from(line))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_named_one_by_one() {
        let found = choices("package=firefox%4012%2B1&since=11&package=word").expect("two");
        let names: Vec<String> = found.iter().map(|it| it.package.to_string()).collect();
        assert_eq!(names, ["firefox@12+1", "word"]);
        assert_eq!(found[0].since.as_ref().map(|it| it.as_str()), Some("11"));
        assert_eq!(found[1].since, None);
        assert!(choices("").is_err() && choices("since=1").is_err() && choices("package=a/b").is_err());
    }
}
