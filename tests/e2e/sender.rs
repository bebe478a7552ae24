//! Deliveries made by hand, byte for byte, over plain HTTP: what an Ingress passes on, and what strangers do.

use std::io;
use std::net::SocketAddr;

use data_encoding::BASE64;
use gemini_operator::api::GeminiWebhook;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::Bed;

/// A Standard Webhooks signature.
pub fn sign(secret: &str, id: &str, timestamp: i64, body: &str) -> String {
    let key = BASE64.decode(secret.trim_start_matches("whsec_").as_bytes()).expect("a secret is base64");
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", BASE64.encode(&mac.finalize().into_bytes()))
}

/// The body of an event about a job.
pub fn succeeded(remote_name: &str) -> String {
    json!({"type": "batch.succeeded", "version": "v1", "data": {"id": remote_name}}).to_string()
}

/// Somebody who knows the secret of a webhook.
#[derive(Clone, Debug)]
pub struct Sender {
    pub path: String,
    pub secret: String,
}

impl Sender {
    pub async fn of(bed: &Bed, webhook: &GeminiWebhook) -> Self {
        let path = webhook.status.as_ref().and_then(|status| status.path.clone()).expect("it has a path");
        Self { path, secret: bed.signing_secret(webhook).await }
    }

    /// A signed delivery, as it goes over the wire.
    pub fn delivery(&self, id: &str, body: &str) -> Vec<u8> {
        let timestamp = jiff::Timestamp::now().as_second();
        let signature = sign(&self.secret, id, timestamp, body);
        self.request(&[
            ("webhook-id", id.as_bytes()),
            ("webhook-timestamp", timestamp.to_string().as_bytes()),
            ("webhook-signature", signature.as_bytes()),
            ("content-length", body.len().to_string().as_bytes()),
        ])
        .into_iter()
        .chain(body.bytes())
        .collect()
    }

    /// The head of a request with these headers.
    pub fn request(&self, headers: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = format!("POST {} HTTP/1.1\r\nhost: hooks.test\r\n", self.path).into_bytes();
        for (name, value) in headers {
            bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        bytes.extend(b"\r\n");
        bytes
    }
}

/// A connection to a receiver.
pub struct Line {
    pub stream: TcpStream,
    /// The last answer said that it was the last one.
    pub ends: bool,
}

impl Line {
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, ends: false })
    }

    /// Sends this and reads the status of the answer.
    pub async fn exchange(&mut self, bytes: &[u8]) -> io::Result<u16> {
        self.stream.write_all(bytes).await?;
        self.answer().await
    }

    /// The status of the next answer; none of the receiver's has a body.
    pub async fn answer(&mut self) -> io::Result<u16> {
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            let mut more = [0; 512];
            match self.stream.read(&mut more).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => read.extend(&more[..count]),
            }
        }
        let read = String::from_utf8_lossy(&read);
        self.ends = read.contains("\r\nconnection: close\r\n");
        let status = read.split(' ').nth(1).and_then(|code| code.parse().ok());
        status.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}
