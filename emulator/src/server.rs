//! The accept loop, TLS, and which room a request goes to.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Request, Response};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::admin;
use crate::answer::{Closed, respond};
use crate::calls::{Call, route};
use crate::errors::ApiError;
use crate::exchange::Exchange;
use crate::faults::CallFault;
use crate::files;
use crate::state::App;

/// A body of anything but an upload is at most this long.
const BODY_LIMIT: usize = 64 * 1024 * 1024;

/// Accepts for ever.
pub async fn serve(app: Arc<App>, listener: TcpListener, tls: Option<TlsAcceptor>) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                let (app, tls) = (Arc::clone(&app), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => connection(app, stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                connection(app, stream).await;
                            }
                        }
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection<S>(app: Arc<App>, stream: S)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let app = Arc::clone(&app);
        async move {
            // A task of its own: what was begun is finished, even when the caller goes away.
            match tokio::spawn(handle(app, request)).await {
                Ok(answer) => answer,
                Err(_) => Err(Closed),
            }
        }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn handle(app: Arc<App>, request: Request<Incoming>) -> Result<Response<Body>, Closed> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    if let Some(rest) = path.strip_prefix("/_emulator/") {
        let Some(body) = read(body, BODY_LIMIT).await else { return Err(Closed) };
        let reply = admin::handle(&app, &parts.method, rest, &query(&parts), &body).await;
        return Ok(respond(&reply, &CallFault::default()));
    }
    let route = route(&parts.method, &path, &parts.headers);
    app.state().ledger.count(route.call);
    let limit = if route.call == Call::FilesUploadChunk { files::LIMIT } else { BODY_LIMIT };
    let announced =
        parts.headers.get("content-length").and_then(|text| text.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|announced| announced > limit) {
        let error = ApiError::invalid(format!("Request payload size exceeds the limit: {limit} bytes."));
        return Exchange::new(&app, parts, path, route, Bytes::new()).refuse(error).run().await;
    }
    if let Some(body) = read(body, limit).await {
        return Exchange::new(&app, parts, path, route, body).run().await;
    }
    // The caller went away in the middle, or sent more than it may without saying so.
    Exchange::new(&app, parts, path, route, Bytes::new()).incomplete();
    Err(Closed)
}

/// None where it is too long or its sender went away.
async fn read(body: Incoming, limit: usize) -> Option<Bytes> {
    axum::body::to_bytes(Body::new(body), limit).await.ok()
}

/// The decoded query.
pub fn query(parts: &Parts) -> Vec<(String, String)> {
    let text = parts.uri.query().unwrap_or_default();
    let Ok(url) = reqwest::Url::parse(&format!("http://localhost/?{text}")) else { return Vec::new() };
    url.query_pairs().map(|(key, value)| (key.into_owned(), value.into_owned())).collect()
}

/// Where a listener listens; port 0 has become a real one.
pub async fn bind(address: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
