//! Logins of container tools at the gateway, for upstreams with `logins=yes`.
//!
//! Most of them ask `/v2/` alone how to log in, and send what they have for this host to the place that is
//! named there, for a token that stands for it from then on: the distribution specification's token
//! authentication. Who has no login gets a token as well, for what anybody may have.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::login;
use crate::origin::upstream::Credentials;

/// A tool is told to use a token for so long, and may use it for twice as long.
const GOOD_FOR: Duration = Duration::from_secs(3600);
/// So many are known; the oldest makes room.
const MOST: usize = 4096;

/// The tokens that were given, each with the login that it stands for. In memory alone: after a restart tools
/// are told to ask for new ones.
#[derive(Debug, Default)]
pub(super) struct Logins(Mutex<HashMap<String, (Option<Credentials>, Instant)>>);

/// A token that was never given, or long ago.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnknownToken;

impl Logins {
    /// With what the client would be known to the upstream.
    ///
    /// # Errors
    /// [`UnknownToken`].
    pub(super) fn of(&self, headers: &HeaderMap) -> Result<Option<Credentials>, UnknownToken> {
        let sent = headers.get(header::AUTHORIZATION).and_then(|sent| sent.to_str().ok());
        let bearer = |sent: &str| sent.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer "));
        match sent.filter(|sent| bearer(sent)) {
            Some(sent) => {
                let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                let given = known.get(sent[7..].trim()).filter(|(_, at)| at.elapsed() < 2 * GOOD_FOR);
                given.map(|(login, _)| login.clone()).ok_or(UnknownToken)
            }
            None => Ok(login(headers)),
        }
    }

    /// A token for who asks.
    pub(super) fn give(&self, headers: &HeaderMap) -> Response {
        let token = blake3::Hash::from_bytes(rand::random()).to_hex().to_string();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            let oldest = known.iter().min_by_key(|(_, (_, at))| *at).map(|(token, _)| token.clone());
            oldest.and_then(|oldest| known.remove(&oldest));
        }
        known.insert(token.clone(), (login(headers), Instant::now()));
        let body = json!({"token": token, "access_token": token, "expires_in": GOOD_FOR.as_secs()});
        let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
        (headers, body.to_string()).into_response()
    }
}

/// Where to get one, as the client reaches this gateway.
pub(super) fn challenge(headers: &HeaderMap) -> Option<HeaderValue> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let plain = host.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'));
    let text = format!("Bearer realm=\"http://{host}/v2/token\",service=\"branchline\"");
    HeaderValue::try_from(text).ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::try_from(value).expect("a header"))])
    }

    #[tokio::test]
    async fn a_token_stands_for_the_login_that_it_was_given_for() {
        let logins = Logins::default();
        let of = |text: &str| logins.of(&sent(header::AUTHORIZATION, text));
        let give = async |headers: &HeaderMap| {
            let body = axum::body::to_bytes(logins.give(headers).into_body(), 10_000).await.expect("a body");
            let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            body["token"].as_str().expect("a token").to_owned()
        };
        let basic = sent(header::AUTHORIZATION, "Basic YW5uOnNlY3JldA==");
        let (known, nobody) = (give(&basic).await, give(&HeaderMap::new()).await);
        let login = Credentials::basic("ann", "secret");
        assert_eq!(of(&format!("bearer {known}")), Ok(login.clone()));
        assert_eq!(of(&format!("Bearer {nobody}")), Ok(None));
        assert_eq!((of("Basic YW5uOnNlY3JldA=="), logins.of(&HeaderMap::new())), (Ok(login), Ok(None)));
        assert_eq!(of("Bearer guessed"), Err(UnknownToken));
        for _ in 0..MOST {
            give(&basic).await;
        }
        assert_eq!(of(&format!("Bearer {known}")), Err(UnknownToken), "it has made room");
    }

    #[test]
    fn the_challenge_leads_back_here() {
        let of = |host: &str| challenge(&sent(header::HOST, host));
        let challenge = of("127.0.0.1:7420").expect("a challenge");
        assert_eq!(challenge, "Bearer realm=\"http://127.0.0.1:7420/v2/token\",service=\"branchline\"");
        assert_eq!(of("x\"y"), None);
    }
}
