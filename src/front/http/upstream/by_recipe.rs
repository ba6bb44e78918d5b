//! An object by recipe, for a site's node: delta encoding in HTTP, as RFC 3229 has it.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio_util::io::ReaderStream;

use crate::core::upstream::hub::{ASK, Ask, LONGEST_ASK, MANIPULATION};
use crate::node::hub::ByRecipe;

/// So much of a recipe is read at a time, in bytes.
const PIECE: usize = 128 << 10;
const IM: HeaderName = HeaderName::from_static("im");

/// What a request says of how it would take the object by recipe; none if it would not.
pub(super) fn asked(request: &Parts) -> Option<Ask> {
    let said = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
    let whole = request.method == Method::GET && !request.headers.contains_key(header::RANGE);
    let accepts =
        said("a-im")?.split(',').any(|it| it.split(';').next().unwrap_or_default().trim() == MANIPULATION);
    let ask = said(ASK).filter(|ask| whole && accepts && ask.len() <= LONGEST_ASK)?;
    serde_json::from_str(ask).ok()
}

/// The answer, with what is said of the object anyway.
pub(super) fn answer(found: ByRecipe, mut headers: HeaderMap) -> Response {
    let told = serde_json::to_vec(&found.told).unwrap_or_default();
    let first = Bytes::from([&(told.len() as u32).to_be_bytes()[..], &told].concat());
    let length = first.len() as u64 + found.told.bytes;
    let recipe = ReaderStream::with_capacity(tokio::fs::File::from_std(found.recipe), PIECE);
    headers.insert(IM, HeaderValue::from_static(MANIPULATION));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.remove(header::ACCEPT_RANGES);
    let body = Body::from_stream(stream::once(async { Ok(first) }).chain(recipe));
    (StatusCode::IM_USED, headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    #[test]
    fn only_who_says_so_takes_recipes() {
        let ask = serde_json::to_string(&Ask::default()).expect("JSON");
        let of = |im: &str, ask: &str, range: bool| {
            let mut request = Request::get("/").header("a-im", im).header(ASK, ask);
            if range {
                request = request.header(header::RANGE, "bytes=0-");
            }
            asked(&request.body(()).expect("a request").into_parts().0)
        };
        assert_eq!(of("gzip, branchline-recipe;q=1", &ask, false), Some(Ask::default()));
        assert_eq!(of("gzip", &ask, false), None);
        assert_eq!(of("branchline-recipe", &ask, true), None);
        assert_eq!(of("branchline-recipe", "{}", false), None);
        assert_eq!(of("branchline-recipe", &ask.repeat(100), false), None);
    }
}
