//! A route of scheme `XGoogSignature`: the tutorial's deliveries, and nothing else.

use super::*;

const SECRET: &str = "a secret of the user's own, long enough";
const COMPLETED: &str = r#"{"eventType":"batch.completed","operation":"batches/1"}"#;

/// With a webhook `t-x` of namespace a that a sender of the user's own delivers to.
fn world() -> World {
    let world = World::new();
    let object: SlimWebhook = serde_json::from_value(json!({
        "metadata": {"namespace": "a", "name": "own", "uid": "uid-x"},
        "spec": {"mode": "External", "signature": "XGoogSignature"},
        "status": {"path": "/v1/h/t-x"},
    }))
    .unwrap();
    world.webhook(object.into_route("operator").unwrap());
    let own = entry(SECRET).replace("StandardWebhooks", "XGoogSignature");
    let entries = [("uid-a", &*entry(NEW)), ("uid-x", &*own)];
    world.handler.keyring.apply(Change::All(vec![secret(KEYRING_SECRET, &entries)]));
    world
}

fn hex(body: &str) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes())
}

fn tutorial(token: &str, body: &str) -> Request<Body> {
    Request::post(format!("/v1/h/{token}"))
        .header("x-goog-signature", hex(body))
        .body(Body::from(body.to_owned()))
        .unwrap()
}

#[tokio::test]
async fn an_event_is_stored_once_however_often_it_is_replayed() {
    let world = world();
    assert_eq!(world.send(tutorial("t-x", COMPLETED)).await, 204);
    world.settle().await;
    let [event] = &world.events()[..] else { panic!("one event") };
    assert_eq!(event["lastEvent"]["remoteName"], "batches/1");
    assert_eq!(event["lastEvent"]["type"], "batch.succeeded");
    let [report] = &world.reports()[..] else { panic!("one report") };
    assert_eq!((&report["type"], report.get("skewSeconds")), (&json!("batch.succeeded"), None));

    for _ in 0..20 {
        assert_eq!(world.send(tutorial("t-x", COMPLETED)).await, 204);
    }
    world.settle().await;
    assert_eq!((world.events().len(), world.reports().len()), (1, 1));
    assert_eq!((world.counted(Outcome::Accepted), world.counted(Outcome::Duplicate)), (1, 20));
}

/// It remembers nothing of what it has seen; what stands in the status is known to be an old story.
#[tokio::test]
async fn a_replay_after_a_restart_changes_no_batch() {
    let world = world();
    let digest = <sha2::Sha256 as sha2::Digest>::digest(COMPLETED.as_bytes());
    let id = format!("sha256:{}", data_encoding::HEXLOWER.encode(&digest));
    let mut known = batch("a", "x", "uid-x", &["batches/1"]);
    known.last_event = Some(crate::receiver::index::StoredEvent {
        id: id.into(),
        remote_name: "batches/1".into(),
        type_: "batch.succeeded".into(),
        received: Timestamp::from_second(NOW - 86_400 * 30).unwrap(),
    });
    world.handler.index.apply(0, Change::Applied(known));
    assert_eq!(world.send(tutorial("t-x", COMPLETED)).await, 204);
    world.settle().await;
    assert_eq!((world.events().len(), world.counted(Outcome::Redundant)), (0, 1));
}

#[tokio::test]
async fn no_other_scheme_and_no_other_envelope() {
    let world = world();
    // Signed by the webhook of the other scheme, and by both.
    let both = with(signed("t-x", "m", NOW, COMPLETED), "x-goog-signature", "00");
    let other_route = tutorial("t-a", COMPLETED);
    let wrong = tutorial("t-x", COMPLETED).map(|_| Body::from(COMPLETED.replace('1', "2")));
    let upper = {
        let mut request = tutorial("t-x", COMPLETED);
        let text = hex(COMPLETED).to_uppercase();
        request.headers_mut().insert("x-goog-signature", HeaderValue::from_str(&text).unwrap());
        request
    };
    for (what, request) in [
        ("the other scheme", signed("t-x", "m", NOW, COMPLETED)),
        ("both schemes", both),
        ("on another's route", other_route),
        ("another body", wrong),
        ("upper case", upper),
    ] {
        assert_eq!(world.send(request).await, 401, "{what}");
    }
    // Authentic, and nothing that it knows: the sender need not come again.
    let unknown = COMPLETED.replace("completed", "started");
    for body in [SUCCEEDED, &unknown, "{}", "hello"] {
        assert_eq!(world.send(tutorial("t-x", body)).await, 204, "{body}");
    }
    // And the tutorial's envelope says nothing where Gemini's is spoken.
    assert_eq!(world.deliver("t-a", "m", COMPLETED).await, 204);
    world.settle().await;
    assert_eq!(world.events().len(), 0);
    assert_eq!((world.counted(Outcome::UnknownType), world.counted(Outcome::Unusable)), (1, 4));
}
