//! What is told of deliveries while a self-test waits for one.

use super::*;

/// A ping may be quicker than the watch that tells of it.
#[tokio::test]
async fn what_was_refused_before_its_self_test_was_seen_is_told() {
    let world = World::new();
    let before = json!({"time": "2026-08-20T20:10:00Z", "id": "before"});
    let asked = |sent: &str| {
        webhook("a", "uid-a", "t-a", &json!({"lastPing": {"sentTime": sent}, "lastDelivery": before}))
    };
    let refused = async |id: &str| {
        let tampered = signed("t-a", id, NOW, "{}").map(|_| Body::from("x"));
        assert_eq!(world.send(tampered).await, 401);
        world.settle().await;
    };
    refused("1").await;
    assert_eq!(world.reports().len(), 0, "nobody waits for it");
    // A self-test began in the second in which it was refused.
    world.webhook(asked("2026-08-20T20:10:25Z"));
    world.settle().await;
    let [report] = &world.reports()[..] else { panic!("{:?}", world.reports()) };
    assert_eq!(report["rejected"]["reason"], "no_matching_signature");
    refused("2").await;
    world.webhook(asked("2026-08-20T20:10:25Z"));
    world.settle().await;
    assert_eq!(world.reports().len(), 1, "told once");
}

#[tokio::test]
async fn what_was_refused_before_a_self_test_is_no_word_on_it() {
    let world = World::new();
    let tampered = signed("t-a", "1", NOW, "{}").map(|_| Body::from("x"));
    assert_eq!(world.send(tampered).await, 401);
    world.webhook(webhook("a", "uid-a", "t-a", &json!({"lastPing": {"sentTime": "2026-08-20T20:10:26Z"}})));
    world.settle().await;
    assert_eq!(world.reports().len(), 0);
}

#[tokio::test]
async fn a_self_test_is_reported_at_once_or_not_answered() {
    let world = World::new();
    let status = json!({
        "lastPing": {"sentTime": "2026-08-20T20:10:20Z"},
        "lastDelivery": {"time": "2026-08-20T20:10:00Z", "id": "before"},
    });
    world.webhook(webhook("a", "uid-a", "t-a", &status));

    // A refused one is told once, and leaves the rest of the report in place.
    for id in ["1", "2"] {
        let tampered = signed("t-a", id, NOW, "{}").map(|_| Body::from("x"));
        assert_eq!(world.send(tampered).await, 401);
        world.settle().await;
    }
    let [refused] = &world.reports()[..] else { panic!("{:?}", world.reports()) };
    assert_eq!(
        (&refused["rejected"]["reason"], &refused["id"]),
        (&json!("no_matching_signature"), &json!("before"))
    );

    world.patch.fail(Some(PatchError::Unavailable));
    assert_eq!(world.deliver("t-a", "ping_1", "").await, 503);
    world.patch.fail(None);
    assert_eq!(world.deliver("t-a", "ping_1", "").await, 204);
    let report = world.reports().pop().unwrap();
    assert_eq!(
        report,
        json!({"time": "2026-08-20T20:10:25Z", "id": "ping_1", "type": "ping", "skewSeconds": 0,
            "keyFingerprint": fingerprint(&NEW.into())})
    );
    // Answered: a second ping of the same second says nothing new, and events are reported once a minute again.
    assert_eq!(world.deliver("t-a", "ping_2", "").await, 204);
    assert_eq!(world.deliver("t-a", "msg_1", SUCCEEDED).await, 204);
    world.settle().await;
    assert_eq!(world.reports().len(), 2);
}
