//! What the receiver is measured beside.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::net::TcpStream;

use crate::support::process::{Process, command};
use crate::support::{PATIENCE, poll, tools};

/// The variable by which this program learns that it is the axum peer.
pub const SECRET: &str = "PEER_SECRET";
pub const LISTEN: &str = "PEER_LISTEN";

/// A peer that listens.
pub struct Peer {
    pub process: Process,
    pub address: SocketAddr,
}

/// A bare axum server that does the same verification and nothing else, as a process of its own.
pub async fn axum(dir: &Path, secret: &str) -> Peer {
    let command = command(&std::env::current_exe().expect("this program has a path"));
    start("axum", dir, command, secret, |_| vec![]).await
}

/// An application of ours in the words of FastAPI, under uvicorn.
pub async fn uvicorn(dir: &Path, secret: &str, app: &str, parts: [&str; 2]) -> Peer {
    let script = tools::root().join("benches/peers/venv.sh");
    let said = Command::new(&script).stderr(std::process::Stdio::inherit()).output().expect("bash runs");
    assert!(said.status.success(), "{}", script.display());
    let venv = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    let command = command(&Path::new(&venv).join("bin/uvicorn"));
    let folder = tools::root().join("benches/peers");
    let words = |address: SocketAddr| {
        let mut words: Vec<String> = vec![format!("{app}:app"), "--app-dir".into()];
        words.push(folder.display().to_string());
        let port = address.port().to_string();
        let rest = [
            "--port",
            &port,
            "--loop",
            parts[0],
            "--http",
            parts[1],
            "--no-access-log",
            "--log-level",
            "error",
        ];
        words.extend(rest.map(str::to_owned));
        words
    };
    start(app, dir, command, secret, words).await
}

async fn start(
    name: &str,
    dir: &Path,
    mut command: Command,
    secret: &str,
    words: impl Fn(SocketAddr) -> Vec<String>,
) -> Peer {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let address = free.expect("loopback has a free port");
    command.args(words(address)).env(SECRET, secret).env(LISTEN, address.to_string());
    let process = Process::start(name, dir, command).expect("the peer starts");
    let up = poll(PATIENCE, async || TcpStream::connect(address).await).await;
    assert!(up.is_ok(), "{name} does not listen: {}", process.tail(20));
    Peer { process, address }
}

/// The axum peer, in its process.
pub async fn serve_axum(address: &str, secret: &str) {
    let key = BASE64.decode(secret.trim_start_matches("whsec_").as_bytes()).expect("a secret is base64");
    let app = axum::Router::new().route("/v1/h/{token}", post(receive)).with_state(Arc::new(key));
    let listener = tokio::net::TcpListener::bind(address).await.expect("the port is free");
    axum::serve(listener, app).await.expect("it serves");
}

async fn receive(State(key): State<Arc<Vec<u8>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (id, time) = (text("webhook-id"), text("webhook-timestamp"));
    let age = time.parse::<i64>().map(|time| (jiff::Timestamp::now().as_second() - time).abs());
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else { return StatusCode::INTERNAL_SERVER_ERROR };
    for part in [id.as_bytes(), b".", time.as_bytes(), b".", &body] {
        mac.update(part);
    }
    let signature = text("webhook-signature").trim_start_matches("v1,");
    let signature = BASE64.decode(signature.as_bytes()).unwrap_or_default();
    if age.is_ok_and(|age| age <= 300) && mac.verify_slice(&signature).is_ok() {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::UNAUTHORIZED
    }
}
