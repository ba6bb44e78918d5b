//! One request to an upstream.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use object_store::client::{HttpRequest, HttpRequestBody, HttpResponseBody, HttpService};
use url::Url;

use super::super::meter::{Meter, Sink};
use super::super::transport::MeteredHttp;
use super::super::with_causes;
use super::answer::Answer;
use super::gunzip::Gunzip;
use super::redirect;
use super::token::Tokens;
use super::{Credentials, Upstream, UpstreamError};
use crate::core::upstream::hub;
use crate::core::upstream::record::{LONGEST_HEADER, MOST_HEADERS};

/// An upstream may think for so long before it answers.
pub(super) const THINKS: Duration = Duration::from_secs(20);
/// ... and a hub that makes a recipe.
const HUB_THINKS: Duration = Duration::from_secs(110);
/// What clients are told of what an upstream said.
const TOLD: [&str; 13] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "docker-content-digest",
    "etag",
    "expires",
    "last-modified",
    "link",
    "oci-filters-applied",
    "oci-subject",
    "vary",
];

/// What to ask for.
#[derive(Debug, Clone, Default)]
pub struct Fetch {
    /// Below the upstream's address, without a slash at its beginning; or an address of its own that the
    /// upstream named in an index.
    pub path: String,
    /// What the client would accept.
    pub accept: Option<String>,
    /// Only if it is not this any more: the `ETag` that is held.
    pub known_etag: Option<String>,
    /// Only if it has changed since: the `Last-Modified` that is held.
    pub known_since: Option<String>,
    /// Caches on the way are not to answer with what they have not checked for so many seconds.
    pub no_older_s: Option<u64>,
    /// From this byte on, if it still is what the validator says.
    pub resume: Option<(u64, String)>,
    /// With these, where the upstream has none of its own.
    pub login: Option<Credentials>,
    /// Only what is said of it, and nothing of its content.
    pub head: bool,
    /// Only whether it may be had: that is known from whoever says where else it is.
    pub whether: bool,
    /// A text, which may come compressed and is unpacked on the way.
    pub text: bool,
    /// It may come by recipe: what a hub is to know for that, as its header has it.
    pub by_recipe: Option<String>,
}

/// The way to one upstream: a pool of connections, metered.
#[derive(Debug, Clone)]
pub struct Client {
    upstream: Arc<Upstream>,
    http: MeteredHttp,
    pub(super) tokens: Arc<Tokens>,
}

impl Client {
    /// Makes no connection yet; `sink` is told what connections carry.
    pub fn new(upstream: Arc<Upstream>, sink: Sink) -> Self {
        Self { upstream, http: MeteredHttp::new(Arc::new(Meter::new(sink))), tokens: Arc::default() }
    }

    /// Which.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// The meter of its connections.
    pub fn meter(&self) -> &Arc<Meter> {
        self.http.meter()
    }

    /// Asks the upstream, then its mirrors.
    ///
    /// # Errors
    /// [`UpstreamError`] of the last that was asked.
    pub async fn get(&self, fetch: &Fetch) -> Result<Answer, UpstreamError> {
        let mut last = None;
        for base in &self.upstream.bases {
            match self.get_at(base, fetch).await {
                Err(error) if error.is_transient() => {
                    tracing::debug!(%error, %base, "trying the next mirror");
                    last = Some(error);
                }
                result => return result,
            }
        }
        Err(last.unwrap_or_else(|| self.unreachable("it has no address")))
    }

    pub(super) fn unreachable(&self, why: impl Into<String>) -> UpstreamError {
        UpstreamError::Unreachable { upstream: self.upstream.name.clone(), why: why.into() }
    }

    async fn get_at(&self, base: &Url, fetch: &Fetch) -> Result<Answer, UpstreamError> {
        let mut url = self.address(base, &fetch.path).await?;
        for _ in 0..redirect::MOST {
            let response = self.send_as_user(base, &url, fetch).await?;
            let status = response.status();
            let to = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
            if !status.is_redirection() || status == StatusCode::NOT_MODIFIED || fetch.whether {
                return self.answer(fetch, response);
            }
            let Some(to) = to.and_then(|to| url.join(to).ok()) else {
                return Err(self.redirected(&url, "it does not say where to"));
            };
            if let Some(why) = redirect::refusal(&url, &to) {
                return Err(self.redirected(&to, why));
            }
            if !same_origin(base, &to) && !self.upstream.private_redirects {
                self.refuse_private(&to).await?;
            }
            url = to;
        }
        Err(self.redirected(&url, "it has redirected too often"))
    }

    /// Where a path is. An index may name files anywhere, but no more than a redirect; nothing else leaves
    /// the upstream's own tree.
    async fn address(&self, base: &Url, path: &str) -> Result<Url, UpstreamError> {
        if !["http://", "https://"].iter().any(|scheme| path.starts_with(scheme)) {
            // Put behind and not joined: a path such as `https:/elsewhere/x` would be joined to another host.
            let url = Url::parse(&format!("{base}{path}")).ok();
            let is_within = |url: &Url| same_origin(base, url) && url.path().starts_with(base.path());
            return url.filter(is_within).ok_or_else(|| self.redirected(base, "the path makes no address"));
        }
        let url = Url::parse(path).map_err(|_| self.redirected(base, "its index names no address"))?;
        if let Some(why) = redirect::refusal(base, &url) {
            return Err(self.redirected(&url, why));
        }
        if !same_origin(base, &url) && !self.upstream.private_redirects {
            self.refuse_private(&url).await?;
        }
        Ok(url)
    }

    pub(super) fn redirected(&self, to: &Url, why: &'static str) -> UpstreamError {
        // A signed address is a secret of a kind: its query stays out of messages.
        let to = format!("{}{}", to.origin().ascii_serialization(), to.path());
        UpstreamError::Redirect { upstream: self.upstream.name.clone(), to, why }
    }

    pub(super) async fn refuse_private(&self, to: &Url) -> Result<(), UpstreamError> {
        let why = "that is an address of a private network; allow it with private-redirects=yes";
        let refuse = || Err(self.redirected(to, why));
        if let Some(ip) = redirect::literal(to) {
            return if redirect::is_private(ip) { refuse() } else { Ok(()) };
        }
        let host = (to.host_str().unwrap_or_default(), to.port_or_known_default().unwrap_or(443));
        let found = tokio::time::timeout(THINKS, tokio::net::lookup_host(host)).await;
        let found = found.map_err(|_| self.unreachable("its redirect's name is not found"))?;
        let mut found = found.map_err(|error| self.unreachable(error.to_string()))?;
        if found.any(|address| redirect::is_private(address.ip())) { refuse() } else { Ok(()) }
    }

    pub(super) async fn send(
        &self,
        url: &Url,
        credentials: Option<&Credentials>,
        fetch: &Fetch,
    ) -> Result<http::Response<HttpResponseBody>, UpstreamError> {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = url.as_str().parse().map_err(|_| self.redirected(url, "that is no address"))?;
        if fetch.head {
            *request.method_mut() = Method::HEAD;
        }
        let headers = request.headers_mut();
        insert(headers, header::USER_AGENT, concat!("branchline/", env!("CARGO_PKG_VERSION")));
        insert(headers, header::ACCEPT, fetch.accept.as_deref().unwrap_or("*/*"));
        // What is hashed and cut is the file itself. A part of a compressed text is not a part of the text.
        let packed = fetch.text && fetch.resume.is_none();
        insert(headers, header::ACCEPT_ENCODING, if packed { "gzip" } else { "identity" });
        if let Some(etag) = &fetch.known_etag {
            insert(headers, header::IF_NONE_MATCH, etag);
        }
        if let Some(since) = &fetch.known_since {
            insert(headers, header::IF_MODIFIED_SINCE, since);
        }
        if let Some(seconds) = fetch.no_older_s {
            insert(headers, header::CACHE_CONTROL, &format!("max-age={seconds}"));
        }
        if let Some((from, validator)) = &fetch.resume {
            insert(headers, header::RANGE, &format!("bytes={from}-"));
            insert(headers, header::IF_RANGE, validator);
        }
        // No mirror, and nobody that it redirects to.
        if let Some(ask) = fetch.by_recipe.as_ref().filter(|_| same_origin(&self.upstream.bases[0], url)) {
            insert(headers, HeaderName::from_static("a-im"), hub::MANIPULATION);
            insert(headers, HeaderName::from_static(hub::ASK), ask);
        }
        if let Some(credentials) = credentials {
            headers.insert(header::AUTHORIZATION, credentials.value());
        }
        let thinks = if fetch.by_recipe.is_some() { HUB_THINKS } else { THINKS };
        let sent = tokio::time::timeout(thinks, self.http.call(request)).await;
        let sent = sent.map_err(|_| self.unreachable(format!("no answer within {} s", thinks.as_secs())))?;
        sent.map_err(|error| self.unreachable(with_causes(&error)))
    }

    fn answer(
        &self,
        fetch: &Fetch,
        response: http::Response<HttpResponseBody>,
    ) -> Result<Answer, UpstreamError> {
        let status = response.status();
        let (upstream, path) = (self.upstream.name.clone(), fetch.path.clone());
        let by_recipe = fetch.by_recipe.is_some() && status == StatusCode::IM_USED;
        let usual = matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED);
        let elsewhere = fetch.whether && status.is_redirection();
        if !usual && !by_recipe && !elsewhere {
            return Err(UpstreamError::Status { upstream, path, status: status.as_u16() });
        }
        let text = |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
        let number = |name| text(name).and_then(|value| value.parse().ok());
        let wrong = |why: &str| UpstreamError::Wrong {
            upstream: upstream.clone(),
            path: path.clone(),
            why: why.into(),
        };
        let (start, size) = match status {
            StatusCode::PARTIAL_CONTENT => {
                let part = text(header::CONTENT_RANGE).and_then(part);
                let (start, size) = part.ok_or_else(|| wrong("a part without saying which"))?;
                if fetch.resume.as_ref().is_none_or(|(from, _)| *from != start) {
                    return Err(wrong("another part than was asked for"));
                }
                (start, size)
            }
            _ => (0, number(header::CONTENT_LENGTH)),
        };
        let packed = text(header::CONTENT_ENCODING).is_some_and(|it| matches!(it, "gzip" | "x-gzip"));
        let gunzip = (fetch.text && packed && start == 0).then(Gunzip::new);
        let (mut headers, age_s) = (told(response.headers()), number(header::AGE).unwrap_or(0));
        let size = size.filter(|_| gunzip.is_none());
        if gunzip.is_some() {
            headers.retain(|(name, _)| name != "content-encoding");
        }
        let body = response.into_body();
        Ok(Answer {
            status: status.as_u16(),
            headers,
            size,
            start,
            age_s,
            upstream,
            path,
            body,
            came: 0,
            gunzip,
        })
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

pub(super) fn same_origin(one: &Url, other: &Url) -> bool {
    one.origin() == other.origin()
}

/// `bytes 5-9/10`: where it starts, and the length of the whole.
fn part(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, size) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.trim().parse().ok()?, size.trim().parse().ok()))
}

/// What of a header clients are told.
fn told(headers: &HeaderMap) -> Vec<(String, String)> {
    let told = TOLD.iter().filter_map(|name| {
        let value = headers.get(*name)?.to_str().ok()?;
        (value.len() <= LONGEST_HEADER).then(|| ((*name).to_owned(), value.to_owned()))
    });
    told.take(MOST_HEADERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_path_leaves_its_upstream() {
        let upstream: Upstream = "a http https://a.example/sub/".parse().expect("valid");
        let client = Client::new(Arc::new(upstream), Arc::new(|_| {}));
        let address = async |path: &str| {
            let url = client.address(&client.upstream.bases[0], path).await;
            url.map(String::from).map_err(|error| error.to_string())
        };
        for (path, url) in [
            ("x/y?z=1", "https://a.example/sub/x/y?z=1"),
            ("http:/b.example/x", "https://a.example/sub/http:/b.example/x"),
            ("https:b.example", "https://a.example/sub/https:b.example"),
            ("", "https://a.example/sub/"),
            ("https://a.example/beside", "https://a.example/beside"),
            ("https://8.8.8.8/x", "https://8.8.8.8/x"),
        ] {
            assert_eq!(address(path).await.as_deref(), Ok(url), "{path}");
        }
        for (path, why) in [
            ("../x", "no address"),
            ("%2e%2E/x", "no address"),
            ("https://127.0.0.1/x", "private network"),
            ("https://[::1]/x", "private network"),
            ("http://8.8.8.8/x", "not encrypted"),
        ] {
            let error = address(path).await.expect_err(path);
            assert!(error.contains(why), "{path}: {error}");
        }
    }
}
