//! Answers as bytes on a connection, whole or broken.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use bytes::Bytes;
use futures::StreamExt;

use crate::faults::CallFault;
use crate::http::Reply;

/// Between the last good byte of a truncated answer and the end of its connection, so that the bytes leave.
const FLUSH: Duration = Duration::from_millis(20);

/// The connection is to be closed without an answer.
#[derive(Debug)]
pub struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed by the fault plan")
    }
}

impl std::error::Error for Closed {}

/// How many bytes of a body leave.
pub fn served(reply: &Reply, fault: &CallFault) -> usize {
    reply.body.len().min(fault.truncate_body_at.unwrap_or(usize::MAX))
}

pub fn respond(reply: &Reply, fault: &CallFault) -> Response<Body> {
    let length = reply.body.len();
    let body = match (fault.truncate_body_at, fault.drip_bytes) {
        (Some(at), _) if at < length => cut_off(reply.body.slice(..at)),
        (_, Some(size)) if size > 0 => drip(reply.body.clone(), size, fault.drip_ms.unwrap_or(100)),
        _ => Body::from(reply.body.clone()),
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers: &mut HeaderMap = response.headers_mut();
    if !reply.content_type.is_empty() {
        headers.insert("content-type", HeaderValue::from_static(reply.content_type));
    }
    headers.insert("content-length", HeaderValue::from(length));
    for (name, value) in &reply.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
        {
            headers.insert(name, value);
        }
    }
    response
}

/// These bytes, then the connection breaks.
fn cut_off(bytes: Bytes) -> Body {
    let end = futures::stream::once(async {
        tokio::time::sleep(FLUSH).await;
        Err::<Bytes, Closed>(Closed)
    });
    Body::from_stream(futures::stream::iter([Ok(bytes)]).chain(end))
}

fn drip(bytes: Bytes, size: usize, millis: u64) -> Body {
    let stream = futures::stream::unfold(bytes, move |mut left| async move {
        if left.is_empty() {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(millis)).await;
        let part = left.split_to(size.min(left.len()));
        Some((Ok::<Bytes, Infallible>(part), left))
    });
    Body::from_stream(stream)
}
