//! Deliveries: signatures, retries, disabled endpoints, dynamic addresses, forgeries, TLS and names.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::Method;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use crate::support::{Emulator, Endpoint, Received, provider, until};

const PLAIN: &[&str] = &["--allow-http-webhooks", "--job-time", "0", "--retry-scale", "100"];

async fn delivery_outcomes(emulator: &Emulator) -> Vec<(String, String)> {
    let ledger = emulator.ledger().await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entries = ledger["deliveries"].as_array().unwrap();
    entries.iter().map(|entry| (text(&entry["event_type"]), text(&entry["outcome"]))).collect()
}

#[tokio::test]
async fn the_end_of_a_job_is_delivered_signed() {
    let emulator = Emulator::start(PLAIN);
    let endpoint = Endpoint::start().await;
    let (_, secret) = emulator.webhook(&endpoint.url()).await;
    let job = emulator.job("d", &["a"]).await;
    let received = endpoint.wait(1).await;
    let body = received[0].json();
    assert_eq!(body["type"], "batch.succeeded");
    assert_eq!(body["version"], "v1");
    let file = format!("files/batch-{}", job.trim_start_matches("batches/"));
    assert_eq!(body["data"], json!({"id": job, "output_file_uri": file}));
    assert!(received[0].signed_with(&secret));
    assert!(received[0].header("webhook-id").starts_with("msg_"));
    assert!(received[0].header("webhook-timestamp").parse::<u64>().is_ok());
    assert_eq!(
        emulator.state(&job).await,
        "BATCH_STATE_SUCCEEDED",
        "the state stands before the event leaves"
    );
}

#[tokio::test]
async fn only_subscribers_of_the_same_project_are_told() {
    let emulator =
        Emulator::start(&[PLAIN, &["--api-key", "TEST_API_KEY=one", "--api-key", "other=two"]].concat());
    let (mine, narrow, off, foreign) =
        (Endpoint::start().await, Endpoint::start().await, Endpoint::start().await, Endpoint::start().await);
    emulator.webhook(&mine.url()).await;
    emulator.post("/v1/webhooks", json!({"uri": narrow.url(), "subscribed_events": ["batch.failed"]})).await;
    let (id, _) = emulator.webhook(&off.url()).await;
    emulator.call(Method::PATCH, &format!("/v1/webhooks/{id}"), Some(json!({"state": "disabled"}))).await;
    let body = json!({"uri": foreign.url(), "subscribed_events": ["batch.succeeded"]});
    let request =
        emulator.client.post(format!("{}/v1/webhooks", emulator.url)).header("x-goog-api-key", "other");
    assert_eq!(request.json(&body).send().await.unwrap().status(), 200);
    emulator.job("one", &["a"]).await;
    mine.wait(1).await;
    emulator
        .faults(json!({"jobs": [{"do": {"state": "FAILED", "error": {"code": 8, "message": "quota"}}}]}))
        .await;
    let failed = emulator.job("two", &["a"]).await;
    let told = narrow.wait(1).await;
    assert_eq!(told[0].json()["data"], json!({"id": failed, "error_code": 8, "error_message": "quota"}));
    mine.wait(2).await;
    assert!(off.received().is_empty() && foreign.received().is_empty());
    assert_eq!(narrow.received().len(), 1);
}

#[tokio::test]
async fn failures_are_tried_again_with_the_same_id() {
    let emulator = Emulator::start(PLAIN);
    let endpoint = Endpoint::start().await;
    let (_, secret) = emulator.webhook(&endpoint.url()).await;
    endpoint.answers(&[500, 302, 404, 410]);
    emulator.job("r", &["a"]).await;
    let received = endpoint.wait(5).await;
    assert!(received.iter().all(|one| one.header("webhook-id") == received[0].header("webhook-id")));
    assert!(received.iter().all(|one| one.signed_with(&secret) && one.body == received[0].body));
    until("the fifth is booked", || async {
        let outcomes = delivery_outcomes(&emulator).await;
        (outcomes.len() == 5).then(|| assert_eq!(outcomes[4].1, "delivered"))
    })
    .await;
    let ledger = emulator.ledger().await;
    let statuses: Vec<&Value> =
        ledger["deliveries"].as_array().unwrap().iter().map(|one| &one["status"]).collect();
    assert_eq!(statuses, [&json!(500), &json!(302), &json!(404), &json!(410), &json!(204)]);
}

#[tokio::test]
async fn a_sender_beside_the_api_tells_in_the_tutorial_s_words() {
    let emulator =
        Emulator::start(&[PLAIN, &["--api-key", "TEST_API_KEY=one", "--api-key", "other=two"]].concat());
    let (hooked, told, foreign) = (Endpoint::start().await, Endpoint::start().await, Endpoint::start().await);
    emulator.webhook(&hooked.url()).await;
    let add = async |project: &str, url: &str| {
        let wish =
            json!({"project": project, "url": url, "scheme": "XGoogSignature", "secret": "first secret"});
        emulator.admin(Method::POST, "senders", wish).await["id"].as_str().unwrap().to_owned()
    };
    let sender = add("one", &told.url()).await;
    add("two", &foreign.url()).await;
    told.answers(&[500]);
    let job = emulator.job("one", &["a"]).await;
    let received = told.wait(2).await;
    for one in &received {
        assert_eq!(one.json(), json!({"eventType": "batch.completed", "operation": job}));
        assert!(one.signed_by_tutorial("first secret"));
        assert_eq!(
            ["webhook-id", "webhook-timestamp", "webhook-signature"].map(|name| one.header(name)),
            [""; 3]
        );
    }
    // Gemini's own webhooks are told as ever.
    assert_eq!(hooked.wait(1).await[0].json()["type"], "batch.succeeded");

    let change = json!({"secret": "second secret"});
    emulator.admin(Method::POST, &format!("senders/{sender}"), change).await;
    let end = |state: &str| json!({"jobs": [{"do": {"state": state}}]});
    emulator.faults(end("EXPIRED")).await;
    emulator.job("two", &["a"]).await;
    hooked.wait(2).await;
    emulator.faults(end("FAILED")).await;
    let failed = emulator.job("three", &["a"]).await;
    let received = told.wait(3).await;
    // Nothing of the expiry: the tutorial has no word for it.
    assert_eq!(received[2].json(), json!({"eventType": "batch.failed", "operation": failed}));
    assert!(received[2].signed_by_tutorial("second secret"));

    emulator.admin(Method::DELETE, &format!("senders/{sender}"), json!({})).await;
    emulator.job("four", &["a"]).await;
    hooked.wait(4).await;
    assert!(told.received().len() == 3 && foreign.received().is_empty());
    let (_, state) = emulator.get("/_emulator/state").await;
    let books = emulator.ledger().await.to_string() + &state.to_string();
    assert!(!books.contains("first secret") && !books.contains("second secret"));
}

#[tokio::test]
async fn delays_grow_and_end_after_a_day() {
    let emulator = Emulator::start(&["--allow-http-webhooks", "--job-time", "0"]);
    emulator
        .faults(
            json!({"deliveries": [{"do": {"unreachable": true}}], "options": {"disable_after_events": 1}}),
        )
        .await;
    let (id, _) = emulator.webhook("http://127.0.0.1:9/x").await;
    emulator.job("g", &["a"]).await;
    let mut attempts = 0;
    let given_up = loop {
        attempts += 1;
        let wanted = attempts;
        let last = until("the next attempt", || async {
            let outcomes = delivery_outcomes(&emulator).await;
            (outcomes.len() >= wanted).then(|| outcomes[wanted - 1].1.clone())
        })
        .await;
        if last == "given_up" {
            break attempts;
        }
        assert_eq!(last, "failed");
        emulator.advance(3600).await;
    };
    assert!((24..=36).contains(&given_up), "{given_up} attempts in a day");
    let (_, hook) = emulator.get(&format!("/v1/webhooks/{id}")).await;
    assert_eq!(hook["state"], "disabled_due_to_failed_deliveries");
    // Disabled: events are lost, until it is enabled again.
    let endpoint = Endpoint::start().await;
    emulator.faults(json!({})).await;
    let lost = emulator.job("lost", &["a"]).await;
    emulator.ended(&lost).await;
    // The answer to this comes when everything that was due is done, events included.
    emulator.advance(0).await;
    let change = json!({"state": "enabled", "uri": endpoint.url()});
    let (_, hook) = emulator.call(Method::PATCH, &format!("/v1/webhooks/{id}"), Some(change)).await;
    assert_eq!(hook["state"], "enabled");
    let job = emulator.job("told", &["a"]).await;
    assert_eq!(endpoint.wait(1).await[0].json()["data"]["id"], job);
}

#[tokio::test]
async fn many_failed_attempts_disable_too() {
    let emulator = Emulator::start(PLAIN);
    let endpoint = Endpoint::with(None, 500).await;
    let plan = json!({"options": {"disable_after_attempts": 3, "disable_after_seconds": 0}});
    emulator.faults(plan).await;
    let (id, _) = emulator.webhook(&endpoint.url()).await;
    emulator.job("f", &["a"]).await;
    until("the webhook is disabled", || async {
        let (_, hook) = emulator.get(&format!("/v1/webhooks/{id}")).await;
        (hook["state"] == "disabled_due_to_failed_deliveries").then_some(())
    })
    .await;
    until("the delivery stops", || async {
        delivery_outcomes(&emulator).await.last().filter(|last| last.1 == "disabled").map(|_| ())
    })
    .await;
    assert_eq!(endpoint.received().len(), 3);
}

#[tokio::test]
async fn pings_arrive_and_are_not_repeated() {
    let emulator = Emulator::start(PLAIN);
    let endpoint = Endpoint::start().await;
    let (id, secret) = emulator.webhook(&endpoint.url()).await;
    endpoint.answers(&[500]);
    assert_eq!(emulator.call(Method::POST, &format!("/v1/webhooks/{id}:ping"), None).await, (200, json!({})));
    let received = endpoint.wait(1).await;
    assert_eq!(received[0].json()["type"], "ping");
    assert!(received[0].signed_with(&secret));
    emulator.post(&format!("/v1/webhooks/{id}:ping"), json!({})).await;
    let received = endpoint.wait(2).await;
    assert_ne!(received[0].header("webhook-id"), received[1].header("webhook-id"));
    until("both are booked", || async { (delivery_outcomes(&emulator).await.len() == 2).then_some(()) })
        .await;
    let (nobody, _) = emulator.webhook("http://127.0.0.1:9/").await;
    let unreachable = emulator.post(&format!("/v1/webhooks/{nobody}:ping"), json!({})).await;
    assert_eq!(unreachable, (200, json!({})), "the answer says nothing about the endpoint");
    assert_eq!(emulator.post("/v1/webhooks/none:ping", json!({})).await.0, 404);
}

#[tokio::test]
async fn during_the_overlap_both_secrets_sign_unless_the_plan_says_otherwise() {
    let emulator = Emulator::start(PLAIN);
    let endpoint = Endpoint::start().await;
    let (id, first) = emulator.webhook(&endpoint.url()).await;
    let mut secrets = vec![first];
    for _ in 0..2 {
        let (_, new) = emulator.post(&format!("/v1/webhooks/{id}:rotateSigningSecret"), json!({})).await;
        secrets.push(new["secret"].as_str().unwrap().to_owned());
    }
    for (mode, wanted) in [
        ("newest_and_previous", [false, true, true]),
        ("newest", [false, false, true]),
        ("oldest", [true, false, false]),
        ("all", [true, true, true]),
    ] {
        emulator.faults(json!({"options": {"sign": mode}})).await;
        let before = endpoint.received().len();
        emulator.post(&format!("/v1/webhooks/{id}:ping"), json!({})).await;
        let received = endpoint.wait(before + 1).await;
        let signed: Vec<bool> = secrets.iter().map(|secret| received[before].signed_with(secret)).collect();
        assert_eq!(signed, wanted, "{mode}");
    }
}

#[tokio::test]
async fn a_jobs_own_addresses_replace_the_registered_ones() {
    let emulator = Emulator::start(PLAIN);
    let (registered, own) = (Endpoint::start().await, Endpoint::start().await);
    emulator.webhook(&registered.url()).await;
    assert_eq!(emulator.upload("files/in", &crate::support::jsonl(&["a"])).await.0, 200);
    let hook = json!({"uris": [own.url()], "user_metadata": {"crd_uid": "8d2f", "nested": {"a": 1}}});
    let batch = json!({"batch": {"inputConfig": {"fileName": "files/in"}, "webhookConfig": hook}});
    let create = "/v1/models/gemini-3.8-flash:batchGenerateContent";
    emulator.post(create, batch.clone()).await;
    let received = own.wait(1).await;
    assert_eq!(received[0].json()["user_metadata"], json!({"crd_uid": "8d2f", "nested": {"a": 1}}));
    let (_, set) = emulator.get("/.well-known/jwks.json").await;
    let good = |set: &Value, delivery: &Received| {
        let signature = delivery.header("webhook-signature").strip_prefix("v1a,").unwrap().to_owned();
        let signature = data_encoding::BASE64.decode(signature.as_bytes()).unwrap();
        set["keys"].as_array().unwrap().iter().any(|key| {
            assert_eq!((&key["kty"], &key["crv"], key.get("kid")), (&json!("OKP"), &json!("Ed25519"), None));
            let x = data_encoding::BASE64URL_NOPAD.decode(key["x"].as_str().unwrap().as_bytes()).unwrap();
            let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, x);
            key.verify(&delivery.content(), &signature).is_ok()
        })
    };
    assert!(good(&set, &received[0]));
    let retired = json!({"deliveries": [{"do": {"forge": "retired"}}]});
    emulator.faults(retired).await;
    emulator.post(create, batch.clone()).await;
    assert_eq!(own.wait(2).await[1].header("webhook-signature"), "", "no key has gone yet");
    for _ in 0..3 {
        emulator.admin(Method::POST, "jwks/rotate", json!({})).await;
    }
    let (_, fresh) = emulator.get("/.well-known/jwks.json").await;
    assert!(!good(&fresh, &received[0]));
    emulator.post(create, batch.clone()).await;
    let retired = &own.wait(3).await[2];
    assert!(good(&set, retired) && !good(&fresh, retired));
    let impossible = json!({"deliveries": [{"do": {}}, {"do": {"dynamic": "jwt"}}]});
    let (status, answer) = emulator.call(Method::PUT, "/_emulator/faults", Some(impossible)).await;
    assert_eq!(status, 400);
    assert!(answer["error"].as_str().unwrap().contains("deliveries[1]: dynamic: jwt"), "{answer}");
    assert!(registered.received().is_empty());
}

#[tokio::test]
async fn the_plan_loses_doubles_delays_and_forges() {
    let emulator = Emulator::start(PLAIN);
    let endpoint = Endpoint::start().await;
    let (_, secret) = emulator.webhook(&endpoint.url()).await;
    let next = |fault: Value, wanted: usize| {
        let (emulator, endpoint) = (&emulator, &endpoint);
        async move {
            emulator.faults(json!({"deliveries": [{"match": {"attempt": [1]}, "do": fault}]})).await;
            let before = endpoint.received().len();
            let job = emulator.job(&format!("j{before}-{wanted}"), &["a"]).await;
            emulator.ended(&job).await;
            endpoint.wait(before + wanted).await[before..].to_vec()
        }
    };
    let twice = next(json!({"duplicate": 1}), 2).await;
    assert_eq!(twice[0].header("webhook-id"), twice[1].header("webhook-id"));
    assert!(!next(json!({"forge": "secret"}), 1).await[0].signed_with(&secret));
    assert!(!next(json!({"forge": "signature"}), 1).await[0].signed_with(&secret));
    assert!(!next(json!({"forge": "body"}), 1).await[0].signed_with(&secret));
    assert_eq!(next(json!({"forge": "unsigned"}), 1).await[0].header("webhook-signature"), "");
    let stale = &next(json!({"forge": "stale"}), 1).await[0];
    assert!(stale.signed_with(&secret));
    let age = gemini_emulator::clock::real() / 1_000_000_000
        - stale.header("webhook-timestamp").parse::<i64>().unwrap();
    assert!((595..700).contains(&age), "{age}");
    let body = &next(json!({"body": "not json"}), 1).await[0];
    assert!(body.signed_with(&secret) && body.body == b"not json");
    next(json!({"status": 503}), 1).await;
    next(json!({"delay_ms": [1, 5]}), 1).await;
    // Lost is lost: the next thing that arrives is another job's.
    emulator.faults(json!({"deliveries": [{"times": 1, "do": {"lose": true}}]})).await;
    let before = endpoint.received().len();
    emulator.job("lost", &["a"]).await;
    until("it is lost", || async {
        delivery_outcomes(&emulator).await.iter().any(|one| one.1 == "lost").then_some(())
    })
    .await;
    let job = emulator.job("kept", &["a"]).await;
    assert_eq!(endpoint.wait(before + 1).await[before].json()["data"]["id"], job);
}

#[tokio::test]
async fn a_reordered_delivery_comes_after_the_next() {
    let emulator = Emulator::start(PLAIN);
    let endpoint = Endpoint::start().await;
    emulator.webhook(&endpoint.url()).await;
    emulator.faults(json!({"deliveries": [{"match": {"nth": [1]}, "do": {"reorder": true}}]})).await;
    let first = emulator.job("first", &["a"]).await;
    until("the first waits", || async {
        let (_, plan) = emulator.get("/_emulator/faults").await;
        (plan["deliveries"][0]["fired"] == 1).then_some(())
    })
    .await;
    let second = emulator.job("second", &["a"]).await;
    let order: Vec<Value> =
        endpoint.wait(2).await.iter().map(|one| one.json()["data"]["id"].clone()).collect();
    assert_eq!(order, [json!(second), json!(first)]);
}

#[tokio::test]
async fn admins_send_what_they_like() {
    let emulator = Emulator::start(PLAIN);
    let endpoint = Endpoint::start().await;
    let (id, secret) = emulator.webhook(&endpoint.url()).await;
    let honest =
        json!({"webhook": id, "body": {"type": "batch.succeeded", "data": {"id": "batches/forged"}}});
    assert_eq!(emulator.admin(Method::POST, "deliveries", honest).await, json!({"status": 204}));
    let odd = json!({"webhook": id, "body": "x", "timestamp": "+17", "headers": {"webhook-id": null, "x-other": "1"}});
    emulator.admin(Method::POST, "deliveries", odd).await;
    let foreign =
        json!({"url": endpoint.url(), "body": "y", "secret": "whsec_AAAA", "timestamp": 5, "id": "msg_1"});
    emulator.admin(Method::POST, "deliveries", foreign).await;
    let received = endpoint.wait(3).await;
    assert!(received[0].signed_with(&secret));
    assert_eq!(received[1].headers.get("webhook-id"), None);
    assert_eq!((received[1].header("webhook-timestamp"), received[1].header("x-other")), ("+17", "1"));
    assert!(received[2].signed_with("whsec_AAAA") && !received[2].signed_with(&secret));
    let (status, _) = emulator.post("/_emulator/deliveries", json!({})).await;
    assert_eq!(status, 400);
}

/// A throw-away authority and a certificate for `hooks.example.com`.
fn certificates() -> (String, TlsAcceptor, String, String) {
    provider();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["hooks.example.com".to_owned(), "127.0.0.1".to_owned()];
    let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    (authority.pem(), TlsAcceptor::from(Arc::new(config)), leaf.pem(), key.serialize_pem())
}

#[tokio::test]
async fn https_endpoints_by_name_without_dns() {
    let (authority, tls, _, _) = certificates();
    let endpoint = Endpoint::with(Some(tls), 204).await;
    let files = std::env::temp_dir().join(format!("gemini-emulator-ca-{}.pem", std::process::id()));
    std::fs::write(&files, authority).unwrap();
    let ca = files.to_str().unwrap();
    let resolve = format!("hooks.example.com:443=127.0.0.1:{}", endpoint.port);
    let emulator = Emulator::start(&["--job-time", "0", "--webhook-ca", ca, "--resolve", &resolve]);
    let (_, secret) = emulator.webhook("https://hooks.example.com/v1/h/token").await;
    emulator.job("tls", &["a"]).await;
    let received = endpoint.wait(1).await;
    assert_eq!(received[0].path, "/v1/h/token");
    assert_eq!(received[0].header("host"), "hooks.example.com");
    assert!(received[0].signed_with(&secret));
    // Without the authority the endpoint is not trusted.
    let careful = Emulator::start(&["--job-time", "0", "--resolve", &resolve]);
    careful.webhook("https://hooks.example.com/v1/h/token").await;
    careful.job("tls", &["a"]).await;
    until("the attempt fails", || async {
        delivery_outcomes(&careful).await.first().map(|first| assert_eq!(first.1, "failed"))
    })
    .await;
    assert_eq!(endpoint.received().len(), 1);
    std::fs::remove_file(&files).unwrap();
}

#[tokio::test]
async fn the_api_itself_speaks_tls() {
    let (authority, _, cert, key) = certificates();
    let place =
        |name: &str| std::env::temp_dir().join(format!("gemini-emulator-{name}-{}.pem", std::process::id()));
    let (cert_file, key_file) = (place("cert"), place("key"));
    std::fs::write(&cert_file, cert).unwrap();
    std::fs::write(&key_file, key).unwrap();
    let arguments = ["--tls-cert", cert_file.to_str().unwrap(), "--tls-key", key_file.to_str().unwrap()];
    let root = reqwest::Certificate::from_pem(authority.as_bytes()).unwrap();
    let emulator = Emulator::start_with(&arguments, reqwest::Client::builder().tls_certs_only([root]));
    assert!(emulator.url.starts_with("https://127.0.0.1:"));
    let (status, file) = emulator.upload("files/tls", b"{}").await;
    assert_eq!(status, 200);
    assert!(file["file"]["uri"].as_str().unwrap().starts_with(&emulator.url));
    std::fs::remove_file(&cert_file).unwrap();
    std::fs::remove_file(&key_file).unwrap();
}
