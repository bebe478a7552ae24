//! The paid POST: however it ends, one request left, or none.

use serde_json::json;

use super::*;

const CREATED: &str =
    r#"{"name":"batches/abc","metadata":{"state":"BATCH_STATE_PENDING","displayName":"gb1.K.1.t"}}"#;

async fn post(gemini: &Gemini) -> PostEnd {
    gemini.create_batch(&key(), "gemini-3.5-flash", "gb1.K.1.t", "files/gb-k-n", None).await
}

/// Long enough for a second request, if anything sent one.
async fn ends_after_one_request(answer: impl Fn() -> Do + Send + Sync + 'static) -> PostEnd {
    let server = Server::start(move |_, _| answer()).await;
    let end = post(&server.client()).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(server.requests().len(), 1);
    end
}

fn status(end: &PostEnd) -> u16 {
    match end {
        PostEnd::Answer { status, .. } => *status,
        other => panic!("no answer: {other:?}"),
    }
}

#[tokio::test]
async fn the_request_is_what_the_official_clients_send() {
    let server = Server::start(|_, _| ok(CREATED)).await;
    let end = post(&server.client()).await;
    assert_eq!(end, PostEnd::Answer { status: 200, retry_after: None, body: CREATED.into() });
    let seen = server.request(0);
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str()),
        ("POST", "/v1beta/models/gemini-3.5-flash:batchGenerateContent")
    );
    assert_eq!(seen.header("x-goog-api-key"), KEY);
    assert_eq!(seen.header("content-type"), "application/json");
    assert_eq!(
        seen.json(),
        json!({ "batch": { "displayName": "gb1.K.1.t", "inputConfig": { "fileName": "files/gb-k-n" } } })
    );
}

#[tokio::test]
async fn an_address_of_the_job_s_own() {
    let server = Server::start(|_, _| ok(CREATED)).await;
    let user_metadata = [("submitKey", "K.1".to_owned())].into();
    let hook = Hook { uri: "https://hooks.test/v1/h/token", user_metadata };
    server.client().create_batch(&key(), "m", "gb1.K.1.t", "files/gb-k-n", Some(hook)).await;
    let config = &server.request(0).json()["batch"]["webhookConfig"];
    let wanted = json!({ "uris": ["https://hooks.test/v1/h/token"], "userMetadata": { "submitKey": "K.1" } });
    assert_eq!(*config, wanted);
}

#[tokio::test]
async fn a_reset_before_the_answer_is_doubt() {
    assert!(matches!(ends_after_one_request(|| Do::Reset).await, PostEnd::Broken(_)));
}

#[tokio::test]
async fn a_close_before_the_answer_is_doubt() {
    assert!(matches!(ends_after_one_request(|| Do::Send(Vec::new())).await, PostEnd::Broken(_)));
}

#[tokio::test]
async fn redirects_are_answers_and_are_not_followed() {
    for code in [301, 302, 303, 307, 308] {
        let end = ends_after_one_request(move || reply(code, &[("location", "/elsewhere")], "")).await;
        assert_eq!(status(&end), code);
    }
}

#[tokio::test]
async fn an_overloaded_server_is_not_asked_again() {
    let end = ends_after_one_request(|| reply(503, &[("retry-after", "0")], "{}")).await;
    assert_eq!(end, PostEnd::Answer { status: 503, retry_after: Some(Duration::ZERO), body: "{}".into() });
    for code in [408, 409, 421, 425, 429, 500, 502, 504] {
        assert_eq!(status(&ends_after_one_request(move || reply(code, &[], "")).await), code);
    }
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_doubt() {
    assert!(matches!(ends_after_one_request(|| Do::Hang).await, PostEnd::Broken(_)));
}

#[tokio::test]
async fn half_an_answer_is_doubt() {
    let half = || Do::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"name\":".to_vec());
    assert!(matches!(ends_after_one_request(half).await, PostEnd::Broken(_)));
    let half_chunked =
        || Do::Send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"nam".to_vec());
    assert!(matches!(ends_after_one_request(half_chunked).await, PostEnd::Broken(_)));
    let half_head = || Do::Send(b"HTTP/1.1 200 OK\r\nconte".to_vec());
    assert!(matches!(ends_after_one_request(half_head).await, PostEnd::Broken(_)));
}

#[tokio::test]
async fn an_answer_without_end_is_doubt() {
    let long = || ok(&"x".repeat(70_000));
    assert!(matches!(ends_after_one_request(long).await, PostEnd::Broken(_)));
}

#[tokio::test]
async fn two_posts_use_two_connections() {
    let keep = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{CREATED}", CREATED.len());
    let server = Server::start(move |_, _| Do::Send(keep.clone().into_bytes())).await;
    let gemini = server.client();
    // On a reused connection the second one would find it closed.
    assert_eq!((status(&post(&gemini).await), status(&post(&gemini).await)), (200, 200));
}

#[tokio::test]
async fn what_never_left_is_no_doubt() {
    // A port that was free a moment ago refuses.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let end = post(&client(&refused)).await;
    assert!(matches!(end, PostEnd::NotSent(_)), "{end:?}");

    let no_such_host = post(&client("https://gemini.invalid")).await;
    assert!(matches!(no_such_host, PostEnd::NotSent(_)), "{no_such_host:?}");

    // A server that does not speak TLS ends the handshake.
    let server = Server::start(|_, _| Do::Reset).await;
    let not_tls = post(&client(&server.base.replace("http:", "https:"))).await;
    assert!(matches!(not_tls, PostEnd::NotSent(_)), "{not_tls:?}");

    // Nor do names that do not belong into a URL, or a key that is none.
    let gemini = server.client();
    for end in [
        gemini.create_batch(&key(), "../files", "d", "files/a", None).await,
        gemini.create_batch(&key(), "m1", "d", "files/A?x", None).await,
        gemini.create_batch(&ApiKey::from("a\nb"), "m1", "d", "files/a", None).await,
        gemini.create_batch(&ApiKey::from(""), "m1", "d", "files/a", None).await,
    ] {
        assert!(matches!(end, PostEnd::NotSent(_)), "{end:?}");
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_handshake_that_hangs_is_no_doubt() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://{}", listener.local_addr().unwrap());
    let settings = Settings { base_url: base, api_version: "v1".into(), extra_ca_pem: None };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let timeouts = Timeouts { connect: Duration::from_millis(100), ..Timeouts::default() };
    let end = post(&Gemini::with_timeouts(&settings, timeouts).unwrap()).await;
    assert!(matches!(end, PostEnd::NotSent(_)), "{end:?}");
}

#[tokio::test]
async fn an_answer_that_quotes_the_key_does_not_give_it_away() {
    let quoting =
        format!(r#"{{"error":{{"code":400,"message":"bad key {KEY}","status":"INVALID_ARGUMENT"}}}}"#);
    let end = ends_after_one_request(move || reply(400, &[], &quoting)).await;
    let PostEnd::Answer { body, .. } = end else { panic!("no answer: {end:?}") };
    let body = String::from_utf8(body).unwrap();
    assert!(body.contains("bad key <API key>") && !body.contains(KEY), "{body}");
}
