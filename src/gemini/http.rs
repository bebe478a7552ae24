//! The HTTP client: base URL, time limits, and the one place where an answer becomes a value or an error.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use reqwest::{Certificate, ClientBuilder, Method, RequestBuilder, Response, Url, redirect, retry};
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;

use super::error::{Class, Error, Kind};

/// The API key. Does not print, and is wiped when dropped.
pub type ApiKey = secrecy::SecretString;

const API_KEY_HEADER: HeaderName = HeaderName::from_static("x-goog-api-key");
const API_CLIENT_HEADER: HeaderName = HeaderName::from_static("x-goog-api-client");
/// The domain of Google's own API.
const GOOGLE: &str = "googleapis.com";
const CLIENT_NAME: &str = concat!("gemini-operator/", env!("CARGO_PKG_VERSION"));
/// Largest answer that is read into memory. A listing repeats the inline answers of other people's jobs in the same
/// project, 20 MB each at worst.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Where Gemini is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `https://…` without path; `http://` is taken for loopback addresses only, because every call carries the key.
    pub base_url: String,
    /// `v1beta` or `v1`.
    pub api_version: String,
    /// CA certificates to trust in addition to the system's, as PEM.
    pub extra_ca_pem: Option<Vec<u8>>,
}

/// How long calls may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    pub connect: Duration,
    /// One call, from start to the last byte of its answer.
    pub call: Duration,
    /// One chunk of an upload, and the wait for the next bytes of a download.
    pub transfer: Duration,
    /// The paid POST.
    pub post: Duration,
    /// First wait before an upload is resumed; it doubles.
    pub resume: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            call: Duration::from_mins(1),
            // 8 MiB in 2 minutes is 70 kB/s: slower than that, 2 GB take longer than the file lives.
            transfer: Duration::from_mins(2),
            post: Duration::from_secs(30),
            resume: Duration::from_secs(1),
        }
    }
}

/// The client. Cheap to clone; holds no key.
#[derive(Clone, Debug)]
pub struct Gemini {
    general: reqwest::Client,
    pub(super) submit: reqwest::Client,
    base: Url,
    version: String,
    pub(super) timeouts: Timeouts,
}

/// A complete answer with success status.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json<T: DeserializeOwned>(&self, kind: Kind) -> Result<T, Error> {
        // serde quotes the value that it stumbled over, and that may be a secret: no detail for such calls.
        serde_json::from_slice(&self.body).map_err(|e| {
            let detail = if kind == Kind::Once { "unexpected JSON".to_owned() } else { e.to_string() };
            Error::unusable(kind, self.status, &detail)
        })
    }
}

impl Gemini {
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        Self::with_timeouts(settings, Timeouts::default())
    }

    /// With limits of one's own, for tests.
    pub fn with_timeouts(settings: &Settings, timeouts: Timeouts) -> Result<Self, Error> {
        let wrong = |message: String| Error::local(Class::Rejected, message);
        // Without this check reqwest panics.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(wrong("no TLS provider is installed in this process".into()));
        }
        let base = parse_base(&settings.base_url).map_err(wrong)?;
        let version = settings.api_version.clone();
        check_version(&version).map_err(wrong)?;
        let mut extra = Vec::new();
        if let Some(pem) = &settings.extra_ca_pem {
            extra = Certificate::from_pem_bundle(pem).map_err(|e| wrong(format!("extra CA: {e}")))?;
            if extra.is_empty() {
                return Err(wrong("extra CA: the file holds no certificate".into()));
            }
        }
        let builder = || {
            let builder = ClientBuilder::new()
                .connect_timeout(timeouts.connect)
                // Both would send a request, with the key in it, once more than we know of.
                .redirect(redirect::Policy::none())
                .retry(retry::never())
                .http1_only()
                .https_only(base.scheme() == "https")
                .default_headers(default_headers());
            extra.iter().cloned().fold(builder, ClientBuilder::add_root_certificate)
        };
        let general = if is_loopback(&base) { builder().no_proxy() } else { builder() };
        // SU16 and reliability §2.1: no proxy from the environment, and never a connection that was used before, so
        // that nothing can make a layer below send the request a second time.
        let submit = builder().no_proxy().pool_max_idle_per_host(0).timeout(timeouts.post);
        let build = |builder: ClientBuilder| {
            builder.build().map_err(|e| wrong(format!("HTTP client: {}", e.without_url())))
        };
        Ok(Self { general: build(general)?, submit: build(submit)?, base, version, timeouts })
    }

    /// Whether the base URL is Google's own API and not a stand-in. The host is in lower case already.
    pub fn is_googles(&self) -> bool {
        let host = self.base.host_str().unwrap_or_default().trim_end_matches('.');
        host == GOOGLE || host.strip_suffix(GOOGLE).is_some_and(|rest| rest.ends_with('.'))
    }

    /// `<base>/<version>/<path>`; the path's parts were checked before.
    pub(super) fn url(&self, path: &str) -> Url {
        self.rooted(&format!("/{}/{path}", self.version))
    }

    /// `<base>/<prefix>/<version>/<path>`
    pub(super) fn prefixed_url(&self, prefix: &str, path: &str) -> Url {
        self.rooted(&format!("/{prefix}/{}/{path}", self.version))
    }

    fn rooted(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(path);
        url
    }

    /// A URL that Gemini gave us may be followed only if it leads to the same place as the base URL.
    pub(super) fn is_same_origin(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// A request without key or time limit.
    pub(super) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.general.request(method, url)
    }

    /// One call: with the key, within the time limit, its answer read to the end.
    pub(super) async fn call(
        &self,
        kind: Kind,
        key: &ApiKey,
        request: RequestBuilder,
    ) -> Result<Answer, Error> {
        let request = request.header(API_KEY_HEADER, key_header(key)?).timeout(self.timeouts.call);
        complete(kind, request.send().await.map_err(|e| Error::transport(kind, e, key))?, key).await
    }

    /// GET without body.
    pub(super) async fn get(&self, kind: Kind, key: &ApiKey, url: Url) -> Result<Answer, Error> {
        self.call(kind, key, self.request(Method::GET, url)).await
    }

    /// Any method, with a JSON body.
    pub(super) async fn send_json(
        &self,
        kind: Kind,
        key: &ApiKey,
        method: Method,
        url: Url,
        body: &serde_json::Value,
    ) -> Result<Answer, Error> {
        self.call(kind, key, self.request(method, url).json(body)).await
    }
}

/// Reads an answer to the end; without success status it is an error.
pub(super) async fn complete(kind: Kind, mut response: Response, key: &ApiKey) -> Result<Answer, Error> {
    let status = response.status();
    let headers = std::mem::take(response.headers_mut());
    let too_large = || Error::too_large(kind, status.as_u16(), "it is over 64 MiB");
    // Where the length is announced, nothing is fetched in vain.
    if response.content_length().is_some_and(|length| length > MAX_ANSWER_BYTES as u64) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| Error::transport(kind, e, key))? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    if status.is_success() {
        Ok(Answer { status: status.as_u16(), headers, body: body.into() })
    } else {
        Err(Error::answer(kind, status.as_u16(), &headers, &body, key))
    }
}

/// The key as a header that HTTP layers do not print.
pub(super) fn key_header(key: &ApiKey) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(key.expose_secret()).map_err(|_| {
        Error::local(Class::Auth, "the API key holds characters that no key has (a line feed at its end?)")
    })?;
    if value.is_empty() {
        return Err(Error::local(Class::Auth, "the API key is empty"));
    }
    value.set_sensitive(true);
    Ok(value)
}

/// The header's name, for the client that does not go through `call`.
pub(super) const fn key_header_name() -> HeaderName {
    API_KEY_HEADER
}

/// Adds query parameters, escaped.
pub(super) fn with_query(mut url: Url, pairs: &[(&str, &str)]) -> Url {
    url.query_pairs_mut().extend_pairs(pairs);
    url
}

fn default_headers() -> HeaderMap {
    let name = HeaderValue::from_static(CLIENT_NAME);
    HeaderMap::from_iter([(USER_AGENT, name.clone()), (API_CLIENT_HEADER, name)])
}

/// What is wrong with a base URL.
pub fn check_base_url(text: &str) -> Result<(), String> {
    parse_base(text).map(drop)
}

/// What is wrong with the version segment.
pub fn check_version(text: &str) -> Result<(), String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        return Err("an API version is `v1` or `v1beta`".into());
    }
    Ok(())
}

fn parse_base(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| format!("{e}; a base URL looks like https://HOST[:PORT]"))?;
    let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    if !is_bare || !url.username().is_empty() || url.password().is_some() {
        return Err("a base URL has a scheme, a host and perhaps a port, nothing else".into());
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        _ => {
            Err("a base URL is https, because every call carries the API key (http only on loopback)".into())
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
