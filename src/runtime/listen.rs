//! Sockets, and the one line by which a process says where it listens.

use std::io::{self, Write};
use std::net::SocketAddr;

use serde::Serialize;
use tokio::net::TcpListener;

/// A socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{flag} {address}: cannot listen there, choose another address")]
pub struct BindError {
    flag: &'static str,
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// Opens a listening socket; `flag` is where the address came from.
pub async fn bind(flag: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError { flag, address, source })
}

/// What a process prints when it listens.
#[derive(Clone, Debug, Serialize)]
pub struct Announcement {
    /// Where it serves; absent in a process that serves nothing but its admin port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Metrics and probes.
    pub admin: SocketAddr,
}

/// Prints one JSON line on stdout: whoever asked for port 0 reads the real one from it.
pub fn announce(announcement: &Announcement) -> io::Result<()> {
    let mut line = serde_json::to_vec(announcement)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}
