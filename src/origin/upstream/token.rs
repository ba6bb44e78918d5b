//! Tokens of container registries: whoever asks without one is told where to get it, for which service
//! and for what.
//!
//! Credentials, an admin's or a client's own, go to the registry's own host, or from an encrypted registry to an
//! encrypted place that it names; the token that they bring goes to the registry alone.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use object_store::client::HttpResponseBody;
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;

use super::fetch::{Client, Fetch, THINKS, same_origin};
use super::{Credentials, Kind, UpstreamError, redirect};

/// A token of which nothing is said is good for so long, as the registries' protocol has it.
const GOOD_FOR: Duration = Duration::from_secs(60);
/// No token is used for longer.
const LONGEST: Duration = Duration::from_secs(3600);
/// It is not used in its last moments.
const MARGIN: Duration = Duration::from_secs(10);
/// The longest answer that a token comes in, in bytes.
const LARGEST: usize = 256 << 10;
/// So many are kept.
const MOST: usize = 1024;

type Answered = http::Response<HttpResponseBody>;

/// What a registry wants before it answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Challenge {
    realm: String,
    service: Option<String>,
    scope: Option<String>,
}

/// The tokens that are held, each with its end.
#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<HashMap<String, (Credentials, Instant)>>);

#[derive(Deserialize)]
struct Granted {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Tokens {
    async fn held(&self, what: &str) -> Option<Credentials> {
        held(&*self.0.lock().await, what)
    }
}

fn held(tokens: &HashMap<String, (Credentials, Instant)>, what: &str) -> Option<Credentials> {
    tokens.get(what).filter(|(_, end)| Instant::now() < *end).map(|(token, _)| token.clone())
}

impl Client {
    /// Sends a request as whoever may have it: with the admin's credentials, or a token where a registry
    /// wants one; without either to any other host than the upstream's.
    pub(super) async fn send_as_user(
        &self,
        base: &Url,
        url: &Url,
        fetch: &Fetch,
    ) -> Result<Answered, UpstreamError> {
        let own = self.upstream().credentials.as_ref().or(fetch.login.as_ref());
        if !same_origin(base, url) {
            return self.send(url, None, fetch).await;
        }
        if self.upstream().kind != Kind::Oci {
            return self.send(url, own, fetch).await;
        }
        let repository = repository(&fetch.path);
        // What a token is good for depends on who has asked for it.
        let user = fetch.login.as_ref().map(|login| blake3::Hash::from_bytes(login.realm()).to_hex());
        let user = user.as_deref().unwrap_or("anybody");
        let what = format!("{} {repository} {user}", base.origin().ascii_serialization());
        let token = self.tokens.held(&what).await;
        let response = self.send(url, token.as_ref().or(own), fetch).await?;
        let Some(mut challenge) = wanted(response.status(), response.headers()) else { return Ok(response) };
        if !repository.is_empty() {
            challenge.scope.get_or_insert_with(|| format!("repository:{repository}:pull"));
        }
        let asking = self.token(base, &what, own, challenge, token.as_ref());
        let asked = tokio::time::timeout(THINKS, asking).await;
        let token = asked.map_err(|_| self.unreachable("it gives no token"))??;
        self.send(url, Some(&token), fetch).await
    }

    /// A token in the place of one that is good no more. Of those who want one at the same moment one
    /// asks.
    async fn token(
        &self,
        base: &Url,
        what: &str,
        own: Option<&Credentials>,
        challenge: Challenge,
        refused: Option<&Credentials>,
    ) -> Result<Credentials, UpstreamError> {
        let mut tokens = self.tokens.0.lock().await;
        if let Some(token) = held(&tokens, what).filter(|token| Some(token) != refused) {
            return Ok(token);
        }
        let (token, good_for) = self.ask_for_token(base, own, challenge).await?;
        if tokens.len() >= MOST {
            tokens.clear();
        }
        tokens.insert(what.to_owned(), (token.clone(), Instant::now() + good_for));
        Ok(token)
    }

    async fn ask_for_token(
        &self,
        base: &Url,
        own: Option<&Credentials>,
        challenge: Challenge,
    ) -> Result<(Credentials, Duration), UpstreamError> {
        let named = Url::parse(&challenge.realm).ok();
        let mut realm = named.ok_or_else(|| self.redirected(base, "its tokens have no address"))?;
        if let Some(why) = redirect::refusal(base, &realm) {
            return Err(self.redirected(&realm, why));
        }
        let own_host = realm.host() == base.host();
        if !own_host && !self.upstream().private_redirects {
            self.refuse_private(&realm).await?;
        }
        // A scope may name several, with spaces between them; each is a parameter of its own.
        let scopes = challenge.scope.iter().flat_map(|scope| scope.split(' ')).map(|scope| ("scope", scope));
        let service = challenge.service.iter().map(|service| ("service", service.as_str()));
        realm.query_pairs_mut().extend_pairs(service.chain(scopes));
        let trusted = own_host || (base.scheme() == "https" && realm.scheme() == "https");
        let credentials = own.filter(|_| trusted);
        let response = self.send(&realm, credentials, &Fetch::default()).await?;
        let (upstream, path) = (self.upstream().name.clone(), realm.path().to_owned());
        if response.status() != StatusCode::OK {
            let status = response.status().as_u16();
            return Err(UpstreamError::Status { upstream, path, status });
        }
        let body = Limited::new(response.into_body(), LARGEST).collect().await;
        let wrong = |why: &str| UpstreamError::Wrong { upstream, path, why: why.to_owned() };
        let body = match body {
            Ok(body) => body.to_bytes(),
            Err(_) => return Err(wrong("its token broke off, or is too long")),
        };
        granted(&body).ok_or_else(|| wrong("that holds no token"))
    }
}

/// The token of an answer, and for how long to use it.
fn granted(body: &[u8]) -> Option<(Credentials, Duration)> {
    let granted: Granted = serde_json::from_slice(body).ok()?;
    let token = granted.token.or(granted.access_token)?;
    let good_for = granted.expires_in.map_or(GOOD_FOR, Duration::from_secs).clamp(GOOD_FOR, LONGEST);
    Some((Credentials::token(&token)?, good_for - MARGIN))
}

/// The repository that a path below a registry's address is about; empty if none.
fn repository(path: &str) -> &str {
    let path = path.strip_prefix("v2/").unwrap_or(path);
    let ends = ["/manifests/", "/blobs/", "/tags/", "/referrers/"].into_iter();
    ends.filter_map(|part| path.rfind(part)).max().map_or("", |end| &path[..end])
}

/// What is wanted, if that is a token.
fn wanted(status: StatusCode, headers: &HeaderMap) -> Option<Challenge> {
    let all = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let mut challenges = all.filter(|_| status == StatusCode::UNAUTHORIZED).filter_map(challenge);
    challenges.next()
}

/// `Bearer realm="https://auth.example/token",service="x",scope="repository:a/b:pull"`.
fn challenge(text: &str) -> Option<Challenge> {
    let (scheme, mut rest) = text.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut challenge = Challenge::default();
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_at(after.find(',').unwrap_or(after.len())),
        };
        match name.trim_matches([',', ' ']).to_ascii_lowercase().as_str() {
            "realm" => challenge.realm = value.to_owned(),
            "service" => challenge.service = Some(value.to_owned()),
            "scope" => challenge.scope = Some(value.to_owned()),
            _ => {}
        }
        rest = after;
    }
    (!challenge.realm.is_empty()).then_some(challenge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_and_nonsense_is_none() {
        let it = challenge(
            r#"Bearer realm="https://a/t",service="r, s",scope="repository:a/b:pull,push",error=x"#,
        );
        let it = it.expect("a challenge");
        assert_eq!((it.realm.as_str(), it.service.as_deref()), ("https://a/t", Some("r, s")));
        assert_eq!(it.scope.as_deref(), Some("repository:a/b:pull,push"));
        for bad in ["", "Bearer", "Basic realm=\"x\"", "Bearer realm=\"x", "Bearer service=x", "Bearer =,=,="]
        {
            assert_eq!(challenge(bad), None, "{bad}");
        }
    }

    #[test]
    fn tokens_are_used_for_as_long_as_they_say() {
        let seconds = |body: &str| granted(body.as_bytes()).map(|(_, good_for)| good_for.as_secs());
        assert_eq!(seconds(r#"{"token":"a"}"#), Some(50));
        assert_eq!(seconds(r#"{"access_token":"a","expires_in":300,"issued_at":"x"}"#), Some(290));
        assert_eq!(seconds(r#"{"token":"a","expires_in":99999999999}"#), Some(3590));
        for bad in ["", "{}", r#"{"token":"two words"}"#, r#"{"token":""}"#, "[]"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_repository_is_what_comes_before_the_kind() {
        for (path, name) in [
            ("v2/library/debian/manifests/stable", "library/debian"),
            ("v2/a/blobs/b/blobs/sha256:00", "a/blobs/b"),
            ("v2/a/tags/list?n=1", "a"),
            ("v2/", ""),
        ] {
            assert_eq!(repository(path), name);
        }
    }
}
