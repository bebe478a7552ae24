//! The one call of this process to the outside: a GET of the provider's public keys, without any credentials.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::{Certificate, Client, ClientBuilder, Url, redirect, retry};

use super::limits;
use super::public_keys::{FetchError, Source};
use super::signature::jwks::{self, Jwks};

/// Where Google publishes the keys that it signs dynamic deliveries with.
pub const GOOGLES: &str = "https://generativelanguage.googleapis.com/.well-known/jwks.json";

/// What is wrong with a URL of keys.
pub fn check_url(text: &str) -> Result<(), String> {
    parse(text).map(drop)
}

fn parse(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| format!("{e}; such a URL looks like {GOOGLES}"))?;
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("such a URL has a scheme, a host and a path, neither user nor fragment".into());
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        _ => Err(
            "it is https, because whoever can change the keys can sign deliveries (http only on loopback)"
                .into(),
        ),
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The keys at a URL.
#[derive(Debug)]
pub struct JwksFetch {
    client: Client,
    url: Url,
}

impl JwksFetch {
    /// `extra_ca_pem`: CA certificates to trust in addition to the system's.
    pub fn new(url: &str, extra_ca_pem: Option<&[u8]>) -> Result<Self, String> {
        Self::with_timeout(url, extra_ca_pem, limits::JWKS_TIMEOUT)
    }

    fn with_timeout(url: &str, extra_ca_pem: Option<&[u8]>, timeout: Duration) -> Result<Self, String> {
        let url = parse(url)?;
        // Without this check reqwest panics.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err("no TLS provider is installed in this process".into());
        }
        let builder = ClientBuilder::new()
            // Keys count only if they come from this very place.
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .http1_only()
            .https_only(url.scheme() == "https")
            // There is at most one call a minute.
            .pool_max_idle_per_host(0)
            .timeout(timeout)
            .user_agent(concat!("gemini-operator/", env!("CARGO_PKG_VERSION")));
        let mut builder = if is_loopback(&url) { builder.no_proxy() } else { builder };
        if let Some(pem) = extra_ca_pem {
            let extra = Certificate::from_pem_bundle(pem).map_err(|e| format!("extra CA: {e}"))?;
            if extra.is_empty() {
                return Err("extra CA: the file holds no certificate".into());
            }
            builder = extra.into_iter().fold(builder, ClientBuilder::add_root_certificate);
        }
        let client = builder.build().map_err(|e| format!("HTTP client: {}", e.without_url()))?;
        Ok(Self { client, url })
    }
}

impl Source for JwksFetch {
    fn fetch(&self) -> BoxFuture<'static, Result<Jwks, FetchError>> {
        fetch(self.client.clone(), self.url.clone()).boxed()
    }
}

async fn fetch(client: Client, url: Url) -> Result<Jwks, FetchError> {
    let broken = |error: reqwest::Error| FetchError::Unreachable(causes(&error.without_url()));
    let mut response = client.get(url).send().await.map_err(broken)?;
    if response.status() != reqwest::StatusCode::OK {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    // Where the length is announced, nothing is fetched in vain.
    if response.content_length().is_some_and(|length| length > jwks::MAX_BYTES as u64) {
        return Err(jwks::Error::TooLarge.into());
    }
    let mut document = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if document.len() + chunk.len() > jwks::MAX_BYTES {
            return Err(jwks::Error::TooLarge.into());
        }
        document.extend_from_slice(&chunk);
    }
    Ok(Jwks::parse(&document)?)
}

/// reqwest says the least itself.
fn causes(error: &dyn std::error::Error) -> String {
    let (mut text, mut source) = (error.to_string(), error.source());
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
