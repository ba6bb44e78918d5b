//! HTTP under the object stores: hyper's client over metered connections.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use http_body_util::BodyExt;
use hyper::Uri;
use hyper::body::{Body, Frame, SizeHint};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use jiff::{SignedDuration, Timestamp};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpResponseBody, HttpService,
};
use tower_service::Service;

use super::meter::{Busy, Meter, Metered};

type BoxError = Box<dyn StdError + Send + Sync>;

/// A connection that is not there after this is tried again.
const CONNECT: Duration = Duration::from_secs(4);
/// What HTTP reads ahead of its reader, in bytes: what a WAN limit holds back is not to cross early.
const READ_AHEAD: usize = 16 << 10;
const IDLE: Duration = Duration::from_secs(30);

/// Opens TCP connections whose bytes are counted.
#[derive(Debug, Clone)]
struct MeteredConnector {
    tcp: TcpConnector,
    meter: Arc<Meter>,
}

impl Service<Uri> for MeteredConnector {
    type Response = TokioIo<Metered>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.tcp.call(uri);
        let meter = self.meter.clone();
        Box::pin(async move { Ok(TokioIo::new(Metered::new(connecting.await?.into_inner(), meter))) })
    }
}

/// The certificates of the system, read once. A machine without any still reaches plain HTTP.
fn tls() -> Arc<rustls::ClientConfig> {
    static TLS: OnceLock<Arc<rustls::ClientConfig>> = OnceLock::new();
    let make = || {
        let mut roots = rustls::RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map(|config| config.with_root_certificates(roots).with_no_client_auth());
        // The provider and the versions are fixed here, so this cannot fail.
        Arc::new(config.expect("the default protocol versions fit the default provider"))
    };
    TLS.get_or_init(make).clone()
}

/// A pooled HTTP client with a meter of its own.
#[derive(Debug, Clone)]
pub(super) struct MeteredHttp {
    client: Client<HttpsConnector<MeteredConnector>, HttpRequestBody>,
    meter: Arc<Meter>,
}

impl MeteredHttp {
    pub(super) fn new(meter: Arc<Meter>) -> Self {
        let mut tcp = TcpConnector::new();
        tcp.enforce_http(false); // the TLS layer above passes https addresses down
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config((*tls()).clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(MeteredConnector { tcp, meter: meter.clone() });
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .http1_max_buf_size(READ_AHEAD)
            .build(https);
        Self { client, meter }
    }

    pub(super) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }
}

#[async_trait::async_trait]
impl HttpService for MeteredHttp {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.client.request(request).await.map_err(|error| {
            let kind = if error.is_connect() { HttpErrorKind::Connect } else { kind_of(&error) };
            HttpError::new(kind, error)
        })?;
        if let Some(ahead) = clock_ahead(response.headers(), Timestamp::now()) {
            self.meter.note_clock(ahead);
        }
        let (parts, body) = response.into_parts();
        let body = body.map_err(|error| HttpError::new(kind_of(&error), error));
        let busy = parts.extensions.get::<Busy>().cloned().unwrap_or_default();
        busy.set(!body.is_end_stream());
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(ToItsEnd { body: Box::pin(body), busy })))
    }
}

/// An answer that says when it was read to its end.
struct ToItsEnd<B> {
    body: Pin<Box<B>>,
    busy: Busy,
}

impl<B: Body> Body for ToItsEnd<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = self.body.as_mut().poll_frame(cx);
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.busy.set(false);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl HttpConnector for MeteredHttp {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

/// How far a clock that shows `now` is ahead of the one that dated an answer. A cache on the way says how
/// long it has kept the answer.
fn clock_ahead(headers: &HeaderMap, now: Timestamp) -> Option<SignedDuration> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let date = jiff::fmt::rfc2822::parse(text(header::DATE)?).ok()?.timestamp();
    let age = text(header::AGE).and_then(|age| age.parse::<u32>().ok()).unwrap_or(0);
    Some(now.duration_since(date) - SignedDuration::from_secs(age.into()))
}

fn kind_of(error: &(dyn StdError + 'static)) -> HttpErrorKind {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && error.kind() == io::ErrorKind::TimedOut
        {
            return HttpErrorKind::Timeout;
        }
        at = error.source();
    }
    HttpErrorKind::Interrupted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answers_date_tells_the_clocks_apart() {
        let now: Timestamp = "2026-11-30T12:00:00Z".parse().expect("a time");
        let ahead = |date: &'static str, age: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::DATE, HeaderValue::from_static(date));
            age.map(|age| headers.insert(header::AGE, HeaderValue::from_static(age)));
            clock_ahead(&headers, now).map(|ahead| ahead.as_secs())
        };
        assert_eq!(ahead("Mon, 30 Nov 2026 11:59:50 GMT", None), Some(10));
        assert_eq!(ahead("Mon, 30 Nov 2026 13:00:00 GMT", None), Some(-3600));
        assert_eq!(ahead("Mon, 30 Nov 2026 11:00:00 GMT", Some("3600")), Some(0), "from a cache");
        assert_eq!(ahead("yesterday", None), None);
    }
}
