//! The gateway as a proxy, for apt's `Acquire::http::Proxy`: for what lies below an apt upstream, and for
//! nothing else.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{Method, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};

use super::super::error::HttpError;
use super::{APT, hand_out};
use crate::front::pkg;
use crate::node::Node;

/// Answers what is asked of a proxy, and hands all else on.
pub(in crate::front::http) fn proxy(node: Node, router: Router) -> Router {
    // Before the router, which would take another host's path for its own.
    Router::new().fallback_service(router).layer(middleware::from_fn_with_state(node, pass))
}

async fn pass(State(node): State<Node>, request: Request, next: Next) -> Response {
    if request.uri().authority().is_none() && request.method() != Method::CONNECT {
        return next.run(request).await;
    }
    answer(node, request.into_parts().0).await.into_response()
}

async fn answer(node: Node, request: Parts) -> Result<Response, HttpError> {
    if !matches!(request.method, Method::GET | Method::HEAD) {
        let text = "this is a proxy for apt's plain http:// alone, and passes nothing else on: write http:// in \
                    apt's sources, also for an upstream that the agent asks by https://";
        return Err(HttpError::forbidden(text));
    }
    let (upstream, path) = found(&node, &request.uri).ok_or_else(|| refusal(&request.uri))?;
    let (path, base) = (pkg::Path::parse(&path)?, upstream.bases[0].to_string());
    hand_out(node, APT, upstream, path, base, &request).await
}

pub(super) fn found(
    node: &Node,
    uri: &Uri,
) -> Option<(std::sync::Arc<crate::origin::upstream::Upstream>, String)> {
    let path = uri.path_and_query()?.as_str();
    let host = uri.host().filter(|_| uri.scheme_str() == Some("http"))?;
    let (upstream, path) = pkg::apt::proxied(node.upstreams(), host, uri.port_u16(), path)?;
    Some((upstream.clone(), path))
}

fn refusal(uri: &Uri) -> HttpError {
    // A query may hold a secret.
    let asked =
        format!("{}://{}{}", uri.scheme_str().unwrap_or("http"), uri.host().unwrap_or(""), uri.path());
    HttpError::forbidden(format!(
        "this is a proxy for the agent's apt upstreams alone, and {asked:.200} lies below none of them; name it in the \
         agent's configuration, as in upstream = [\"debian apt http://deb.example/debian\"], or let apt go there \
         directly: Acquire::http::Proxy::HOST \"DIRECT\";"
    ))
}
