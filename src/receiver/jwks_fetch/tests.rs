//! Against servers that answer in all ways.

use std::fmt::Write as _;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::runtime::crypto;

const DOCUMENT: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"m2mvf3CO4ywfLu836MSqHhhK4jZxlmEahLdGHsjT2-0"}]}"#;

/// Serves one connection with these bytes, and then closes it if it should; returns what was asked.
async fn fetched(answer: String, close: bool) -> (Result<Jwks, FetchError>, String) {
    crypto::install();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = vec![0; 4096];
        let read = stream.read(&mut asked).await.unwrap();
        // A client that has seen enough does not read to the end.
        let _ = stream.write_all(answer.as_bytes()).await;
        if !close {
            let _ = stream.read(&mut [0; 1]).await;
        }
        String::from_utf8(asked[..read].to_vec()).unwrap()
    });
    let source = JwksFetch::with_timeout(&url, None, Duration::from_millis(500)).unwrap();
    let outcome = source.fetch().await;
    (outcome, server.await.unwrap())
}

fn answer(status: &str, length: usize, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn chunked(size: usize) -> String {
    let chunk = "x".repeat(1024);
    let mut text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    for _ in 0..size / 1024 {
        let _ = write!(text, "400\r\n{chunk}\r\n");
    }
    text + "0\r\n\r\n"
}

#[tokio::test]
async fn answers_of_all_kinds() {
    let whole = |status: &str, body: &str| answer(status, body.len(), body);
    let large = 1 << 20;
    for (what, answer, close, wanted) in [
        ("good", whole("200 OK", DOCUMENT), true, "good"),
        ("none", whole("200 OK", r#"{"keys":[]}"#), true, "empty"),
        ("down", whole("503 Service Unavailable", DOCUMENT), true, "answered with status 503"),
        ("partial", whole("206 Partial Content", DOCUMENT), true, "answered with status 206"),
        (
            "elsewhere",
            whole("302 Found\r\nlocation: http://127.0.0.1:1/", ""),
            true,
            "answered with status 302",
        ),
        ("no JSON", whole("200 OK", "<html>"), true, "not a JSON object"),
        ("1 MB announced", answer("200 OK", large, ""), false, "larger than 65536 bytes"),
        ("1 MB in chunks", chunked(large), true, "larger than 65536 bytes"),
        ("cut off", answer("200 OK", DOCUMENT.len() + 1, DOCUMENT), true, "not reached"),
        ("hanging", answer("200 OK", DOCUMENT.len() + 1, DOCUMENT), false, "not reached"),
        ("silent", String::new(), false, "not reached"),
    ] {
        let (outcome, asked) = fetched(answer, close).await;
        let said = match outcome {
            Ok(keys) if keys.counts() == (1, 0) => "good".to_owned(),
            Ok(_) => "empty".to_owned(),
            Err(error) => error.to_string(),
        };
        assert!(said.contains(wanted), "{what}: {said}");
        assert!(asked.starts_with("GET /jwks.json HTTP/1.1\r\n"), "{what}: {asked}");
        assert!(!asked.to_ascii_lowercase().contains("x-goog-api-key"), "{what}: {asked}");
    }
}

#[tokio::test]
async fn nobody_listens() {
    crypto::install();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let error = JwksFetch::new(&url, None).unwrap().fetch().await.unwrap_err();
    assert!(matches!(error, FetchError::Unreachable(_)), "{error}");
}

#[test]
fn urls() {
    for good in [
        GOOGLES,
        "https://proxy.example.com:8443/keys?of=google",
        "http://127.0.0.1:8080/jwks.json",
        "http://[::1]/",
        "http://localhost/x",
    ] {
        assert_eq!(check_url(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        "jwks.json",
        "http://generativelanguage.googleapis.com/.well-known/jwks.json",
        "http://10.0.0.1/",
        "http://localhost.example.com/",
        "file:///etc/passwd",
        "https://user@example.com/",
        "https://:word@example.com/",
        "https://example.com/#x",
    ] {
        assert!(check_url(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_file_of_authorities_holds_some() {
    crypto::install();
    assert!(JwksFetch::new(GOOGLES, Some(b"")).unwrap_err().contains("no certificate"));
}
