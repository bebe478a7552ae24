//! The HTTP client of deliveries: signatures, own name resolution, own roots.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};

use ring::hmac;

use crate::clock::{SECOND, real};
use crate::deliveries::forged_offset;
use crate::faults::Forgery;
use crate::jwks::{Keys, Signature};

/// An endpoint has so long to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// `HOST:PORT=ADDR[:PORT]`: connections to HOST:PORT go to ADDR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolve {
    host: String,
    port: u16,
    address: SocketAddr,
}

impl FromStr for Resolve {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not HOST:PORT=ADDR, for example hooks.example.com:443=127.0.0.1:8443");
        let (name, address) = text.split_once('=').ok_or_else(wrong)?;
        let (host, port) = name.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let address = address
            .parse::<SocketAddr>()
            .or_else(|_| address.trim_matches(['[', ']']).parse().map(|ip| SocketAddr::new(ip, port)))
            .map_err(|_| wrong())?;
        if host.is_empty() {
            return Err(wrong());
        }
        Ok(Self { host: host.to_ascii_lowercase(), port, address })
    }
}

/// What a delivery is signed by.
#[derive(Clone)]
pub enum Signing {
    /// Keys of a static webhook.
    Static(Vec<[u8; 32]>),
    /// The keys of the JWKS, and the kind that is not the usual one.
    Dynamic(Option<Signature>),
    /// A secret that somebody has thought of, over the body alone.
    XGoog(Vec<u8>),
}

/// What is to be sent.
pub struct Parcel {
    pub id: String,
    pub body: String,
    pub signing: Signing,
    pub forge: Option<Forgery>,
}

#[derive(Clone, Debug)]
pub enum Sent {
    Answered { status: u16, micros: u64 },
    Failed(String),
}

impl Sent {
    /// Redirects are failures too.
    pub fn good(&self) -> bool {
        matches!(self, Self::Answered { status: 200..=299, .. })
    }
}

#[derive(Debug)]
pub struct Sender {
    plain: reqwest::Client,
    resolved: Vec<(Resolve, reqwest::Client)>,
}

impl Sender {
    pub fn new(ca: Option<&[u8]>, resolves: Vec<Resolve>) -> Result<Self, String> {
        let roots = match ca {
            None => Vec::new(),
            Some(pem) => {
                let roots = reqwest::Certificate::from_pem_bundle(pem)
                    .map_err(|error| format!("--webhook-ca: {error}"))?;
                if roots.is_empty() {
                    return Err("--webhook-ca: no certificate in the file".into());
                }
                roots
            }
        };
        let clients = resolves
            .into_iter()
            .map(|resolve| client(&roots, Some(&resolve)).map(|client| (resolve, client)))
            .collect::<Result<_, _>>()?;
        Ok(Self { plain: client(&roots, None)?, resolved: clients })
    }

    pub async fn send(&self, url: &str, parcel: &Parcel, keys: &Keys) -> Sent {
        let timestamp = (real() / SECOND).saturating_add(forged_offset(parcel.forge));
        let signature = signature(parcel, url, timestamp, keys);
        let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        let name = if matches!(parcel.signing, Signing::XGoog(_)) {
            "x-goog-signature"
        } else {
            headers.push(("webhook-id".to_owned(), parcel.id.clone()));
            headers.push(("webhook-timestamp".to_owned(), timestamp.to_string()));
            "webhook-signature"
        };
        if let Some(signature) = signature {
            headers.push((name.to_owned(), signature));
        }
        let mut body = parcel.body.clone().into_bytes();
        if parcel.forge == Some(Forgery::Body) {
            body.push(b' ');
        }
        self.post(url, headers, body).await
    }

    /// One POST, as it is given.
    pub async fn post(&self, url: &str, headers: Vec<(String, String)>, body: Vec<u8>) -> Sent {
        let Ok(mut url) = reqwest::Url::parse(url) else { return Sent::Failed("not a URL".into()) };
        let port = url.port_or_known_default();
        let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
        let authority = url.port().map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
        let found = self.resolved.iter().find(|(to, _)| to.host == host && Some(to.port) == port);
        let client = match found {
            None => &self.plain,
            Some((to, client)) => {
                // The address's port, while the Host header and the TLS name stay the URL's.
                if url.set_port(Some(to.address.port())).is_err() {
                    return Sent::Failed("the URL cannot have a port".into());
                }
                client
            }
        };
        let mut request = client.post(url).header("host", authority).body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let begin = Instant::now();
        match request.send().await {
            Ok(answer) => Sent::Answered {
                status: answer.status().as_u16(),
                micros: u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX),
            },
            Err(error) => Sent::Failed(causes(&error)),
        }
    }
}

fn client(roots: &[reqwest::Certificate], resolve: Option<&Resolve>) -> Result<reqwest::Client, String> {
    let builder = |only: bool| {
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .user_agent("Google-Gemini-Webhooks (gemini-emulator)");
        builder = if only {
            builder.tls_certs_only(roots.iter().cloned())
        } else {
            builder.tls_certs_merge(roots.iter().cloned())
        };
        match resolve {
            Some(resolve) => builder.resolve(&resolve.host, resolve.address),
            None => builder,
        }
    };
    // A machine without any root certificates: then only what --webhook-ca gives is trusted.
    builder(false)
        .build()
        .or_else(|_| builder(true).build())
        .map_err(|error| format!("delivery client: {}", causes(&error)))
}

/// The value of the header that it is in; None where there is none.
fn signature(parcel: &Parcel, url: &str, timestamp: i64, keys: &Keys) -> Option<String> {
    let content = format!("{}.{timestamp}.{}", parcel.id, parcel.body);
    let other = [0x5a; 32];
    let signature = match (parcel.forge, &parcel.signing) {
        (Some(Forgery::Unsigned), _) => return None,
        (Some(Forgery::Retired), Signing::Dynamic(asked)) => {
            keys.sign(*asked, true, url, content.as_bytes())?
        }
        (Some(Forgery::Secret | Forgery::Retired), Signing::XGoog(_)) => x_goog(&other, &parcel.body),
        (Some(Forgery::Secret | Forgery::Retired), _) => static_signature(&[other], content.as_bytes()),
        (_, Signing::Dynamic(asked)) => keys.sign(*asked, false, url, content.as_bytes())?,
        (_, Signing::Static(keys)) => static_signature(keys, content.as_bytes()),
        (_, Signing::XGoog(secret)) => x_goog(secret, &parcel.body),
    };
    if parcel.forge == Some(Forgery::Signature) {
        return Some(flipped(&signature));
    }
    Some(signature)
}

/// `v1,<base64>` for every key, separated by spaces.
pub fn static_signature(keys: &[[u8; 32]], content: &[u8]) -> String {
    let entries: Vec<String> = keys.iter().map(|key| format!("v1,{}", mac(key, content))).collect();
    entries.join(" ")
}

/// Hex of the HMAC-SHA256 of the body.
fn x_goog(secret: &[u8], body: &str) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), body.as_bytes());
    data_encoding::HEXLOWER.encode(tag.as_ref())
}

/// Base64 of the HMAC-SHA256.
pub fn mac(key: &[u8], content: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), content);
    data_encoding::BASE64.encode(tag.as_ref())
}

/// Another first character of each signature.
fn flipped(signature: &str) -> String {
    let other = |text: &str, one: char, two: char| {
        let first = if text.starts_with(one) { two } else { one };
        format!("{first}{}", text.get(1..).unwrap_or_default())
    };
    let entries: Vec<String> = signature
        .split(' ')
        .map(|entry| {
            let Some((version, text)) = entry.split_once(',') else { return other(entry, '0', '1') };
            format!("{version},{}", other(text, 'A', 'B'))
        })
        .collect();
    entries.join(" ")
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vector_is_signed_alike() {
        let key = data_encoding::BASE64.decode(b"C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap();
        let content = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk.1649367553.{\"email\":\"test@example.com\",\"username\":\"test_user\"}";
        assert_eq!(mac(&key, content.as_bytes()), "tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
    }

    #[test]
    fn the_tutorials_vector_is_signed_alike() {
        // By: printf '%s' '{"a":1}' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
        let signature = x_goog(b"0123456789abcdef0123456789abcdef", r#"{"a":1}"#);
        assert_eq!(signature, "f0546246da9e2349100c845a8561214788d75d900f3c086a72fcfa03bb1f42ab");
        assert_ne!(flipped(&signature), signature);
    }

    #[test]
    fn resolves_are_curls() {
        let short: Resolve = "Hooks.example.com:443=127.0.0.1".parse().unwrap();
        assert_eq!(short.address, "127.0.0.1:443".parse().unwrap());
        assert_eq!(short.host, "hooks.example.com");
        let long: Resolve = "h:443=127.0.0.1:8443".parse().unwrap();
        assert_eq!(long.address, "127.0.0.1:8443".parse().unwrap());
        for bad in ["", "h=1.2.3.4", "h:443=name", ":443=1.2.3.4", "h:70000=1.2.3.4"] {
            assert!(bad.parse::<Resolve>().is_err(), "{bad}");
        }
    }
}
