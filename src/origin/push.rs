//! Sending a site's sums over the WAN: one metered request at a time, as Prometheus remote write 1.0.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode, header};
use http_body_util::BodyExt;
use object_store::client::{HttpRequest, HttpRequestBody, HttpService};
use serde::{Deserialize, Deserializer};
use url::Url;

use super::meter::{Meter, Sink};
use super::transport::MeteredHttp;

/// A request that is not answered after this has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of a refusal, so much is read and shown.
const SHOWN: usize = 300;

/// Where to: `http(s)://HOST/PATH`, checked once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushUrl(Url);

/// A text that is no such place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}: give the http:// or https:// address of a remote-write receiver, such as https://prometheus.example.com/api/v1/write; what it asks of senders goes into push_token_file"
)]
pub struct InvalidPushUrl(&'static str);

impl FromStr for PushUrl {
    type Err = InvalidPushUrl;

    fn from_str(text: &str) -> Result<Self, InvalidPushUrl> {
        // The text itself may hold a password, so it is not repeated.
        let url = Url::parse(text).map_err(|_| InvalidPushUrl("this is no address to push to"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(InvalidPushUrl("this is no web address"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(InvalidPushUrl("an address to push to has no user, password or fragment"));
        }
        Ok(Self(url))
    }
}

impl fmt::Display for PushUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A query may hold a key: it stays out of logs.
        write!(f, "{}{}", self.0.origin().ascii_serialization(), self.0.path())
    }
}

impl<'de> Deserialize<'de> for PushUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What the receiver asks for: sent as a bearer token, and never shown.
#[derive(Clone)]
pub struct Token(header::HeaderValue);

impl Token {
    /// From what a file holds; `None` if that is no token.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let plain =
            !text.is_empty() && text.len() <= 8192 && text.bytes().all(|byte| byte.is_ascii_graphic());
        let mut value = header::HeaderValue::try_from(format!("Bearer {text}")).ok().filter(|_| plain)?;
        value.set_sensitive(true);
        Some(Self(value))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Why nothing was taken in.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// It was not reached, or has trouble of its own.
    #[error("{0}")]
    Transient(String),
    /// It does not want this.
    #[error("it refuses with status {0}: {1}")]
    Refused(u16, String),
}

impl PushError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient(_))
    }
}

/// The way there.
#[derive(Debug, Clone)]
pub struct Pusher {
    url: PushUrl,
    token: Option<Token>,
    http: MeteredHttp,
}

impl Pusher {
    /// Makes no connection yet; `sink` is told what connections carry.
    pub fn new(url: PushUrl, token: Option<Token>, sink: Sink) -> Self {
        Self { url, token, http: MeteredHttp::new(Arc::new(Meter::new(sink))) }
    }

    /// Where to.
    pub fn url(&self) -> &PushUrl {
        &self.url
    }

    /// Sends one write request, compressed already.
    ///
    /// # Errors
    /// [`PushError`].
    pub async fn push(&self, body: Bytes) -> Result<(), PushError> {
        let silent = || PushError::Transient(format!("it did not answer within {} s", PATIENCE.as_secs()));
        tokio::time::timeout(PATIENCE, self.send(body)).await.map_err(|_| silent())?
    }

    async fn send(&self, body: Bytes) -> Result<(), PushError> {
        let failed = |error: &dyn fmt::Display| PushError::Transient(error.to_string());
        let mut request = HttpRequest::new(HttpRequestBody::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.0.as_str().parse().map_err(|error| failed(&error))?;
        let headers = request.headers_mut();
        let agent = concat!("branchline/", env!("CARGO_PKG_VERSION"));
        for (name, value) in [
            (header::CONTENT_TYPE, "application/x-protobuf"),
            (header::CONTENT_ENCODING, "snappy"),
            (header::USER_AGENT, agent),
            (header::HeaderName::from_static("x-prometheus-remote-write-version"), "0.1.0"),
        ] {
            headers.insert(name, header::HeaderValue::from_static(value));
        }
        if let Some(Token(value)) = &self.token {
            headers.insert(header::AUTHORIZATION, value.clone());
        }
        let response = self.http.call(request).await.map_err(|error| failed(&super::with_causes(&error)))?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let text = first_of(response.into_body()).await;
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(PushError::Transient(format!("status {}: {text}", status.as_u16())));
        }
        Err(PushError::Refused(status.as_u16(), text))
    }
}

/// The first line of an answer, as far as it may be shown.
async fn first_of(mut body: object_store::client::HttpResponseBody) -> String {
    let mut said = Vec::new();
    while said.len() < SHOWN {
        match body.frame().await {
            Some(Ok(frame)) => said.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
            _ => break,
        }
    }
    said.truncate(SHOWN);
    let text = String::from_utf8_lossy(&said);
    text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_tokens_are_checked_and_not_shown() {
        let url: PushUrl = "https://prometheus.example.com/api/v1/write?key=secret".parse().expect("valid");
        assert_eq!(url.to_string(), "https://prometheus.example.com/api/v1/write");
        for bad in ["", "prometheus:9090", "ftp://x/y", "https://u:secret@x/y", "/api/v1/write"] {
            let error = bad.parse::<PushUrl>().expect_err(bad).to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        let token = Token::parse(" secret\n").expect("valid");
        assert!(!format!("{token:?}").contains("secret"));
        for bad in ["", " \n", "two words", "zwölf"] {
            assert!(Token::parse(bad).is_none(), "{bad}");
        }
    }
}
