//! The client against a server that does exactly what a test tells it to, byte by byte.

mod calls;
mod parse;
mod post;
mod upload;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

pub const KEY: &str = "AIza-secret-of-the-tests";

pub fn key() -> ApiKey {
    ApiKey::from(KEY)
}

/// A request as it came over the wire.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What the server does with a request.
pub enum Do {
    /// Sends these bytes and closes.
    Send(Vec<u8>),
    /// Closes with a TCP reset, without a byte.
    Reset,
    /// Never answers.
    Hang,
}

pub fn reply(status: u16, headers: &[(&str, &str)], body: &str) -> Do {
    let mut text = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
    for (name, value) in headers {
        text = format!("{text}{name}: {value}\r\n");
    }
    Do::Send(format!("{text}\r\n{body}").into_bytes())
}

pub fn ok(body: &str) -> Do {
    reply(200, &[], body)
}

/// The server; remembers every complete request.
pub struct Server {
    pub base: String,
    pub seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// `answer` gets the request's number, from 0, and the request.
    pub async fn start(answer: impl Fn(usize, &Seen) -> Do + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), seen.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, log.clone(), answer.clone()));
            }
        });
        Self { base, seen }
    }

    pub fn client(&self) -> Gemini {
        client(&self.base)
    }

    pub fn requests(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn request(&self, index: usize) -> Seen {
        self.requests()[index].clone()
    }
}

pub fn client(base: &str) -> Gemini {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = Settings { base_url: base.into(), api_version: "v1beta".into(), extra_ca_pem: None };
    // Short enough for the tests that wait for one of them, long enough for a busy machine.
    let short = Duration::from_secs(3);
    let timeouts =
        Timeouts { connect: short, call: short, transfer: short, post: 2 * short, resume: short / 1000 };
    Gemini::with_timeouts(&settings, timeouts).unwrap()
}

async fn serve(
    mut stream: TcpStream,
    seen: Arc<Mutex<Vec<Seen>>>,
    answer: Arc<impl Fn(usize, &Seen) -> Do + Send + Sync + 'static>,
) {
    let Some(request) = read(&mut stream).await else { return };
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push(request.clone());
        seen.len() - 1
    };
    match answer(number, &request) {
        Do::Send(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Do::Reset => {
            let _ = stream.set_zero_linger();
        }
        Do::Hang => tokio::time::sleep(Duration::from_mins(1)).await,
    }
}

async fn read(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    let end = loop {
        if let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
            break end;
        }
        match stream.read(&mut chunk).await.ok()? {
            0 => return None,
            n => bytes.extend_from_slice(&chunk[..n]),
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ').map(str::to_owned);
    let headers: HashMap<String, String> = lines
        .filter_map(|l| l.split_once(": "))
        .map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |l| l.parse().unwrap());
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        match stream.read(&mut chunk).await.ok()? {
            0 => return None,
            n => body.extend_from_slice(&chunk[..n]),
        }
    }
    Some(Seen { method: first.next()?, target: first.next()?, headers, body })
}
