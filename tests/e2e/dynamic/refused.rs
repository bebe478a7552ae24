//! Documents that are no keys, and signatures that are none: refused for the right reason, and nothing is written.

use serde_json::{Value, json};

use super::forger::{self, Forger, KID, alg_none, hs256, rs256};
use super::{bed_with, make_webhook, options};
use crate::sender::{Line, succeeded};
use crate::support::bed::Replica;
use crate::support::{Bed, RECEIVER};

/// A series of a replica's metrics; 0 if it has none.
async fn metric(replica: &Replica, series: &str) -> u64 {
    let answer = reqwest::get(format!("http://{}/metrics", replica.admin)).await.expect("metrics are served");
    let text = answer.text().await.expect("metrics are text");
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().expect("a counter is a number"))
}

async fn rejected(replica: &Replica, reason: &str) -> u64 {
    metric(replica, &format!("gemini_operator_receiver_rejections_total{{reason=\"{reason}\"}}")).await
}

async fn send(replica: &Replica, delivery: &[u8]) -> u16 {
    let mut line = Line::open(replica.listen).await.expect("the receiver listens");
    line.exchange(delivery).await.expect("the receiver answers")
}

/// What the API server and Gemini were asked for so far: writes by receivers, and calls.
async fn caused(bed: &Bed) -> (Option<usize>, usize) {
    let writes = bed
        .audit_up_to_now()
        .await
        .map(|all| all.iter().filter(|request| request.user == RECEIVER && request.is_write()).count());
    let calls = bed.ledger().await.sequence();
    (writes, calls.iter().filter(|(call, _)| call != "jwks.get").count())
}

fn serving(document: &str) -> Value {
    json!({"rules": [{"match": {"call": "jwks.get"}, "do": {"body": document}}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_are_no_keys() {
    let bed = bed_with("dynamic-documents", options(false, json!({}))).await;
    let webhook = make_webhook(&bed, "DynamicV1a").await;
    let forger = Forger::of(&webhook);
    let good = forger.document();
    let members = good["keys"].as_array().unwrap();
    let large = json!({"keys": members, "more": "x".repeat(1 << 20)}).to_string();
    let many = json!({"keys": vec![&members[0]; 21]}).to_string();
    let with_kty = |kty: &str| {
        let mut key = members[0].clone();
        key["kty"] = json!(kty);
        json!({"keys": [key, members[1]]}).to_string()
    };
    // One of small order, under which a signature of nothing but zeros is good for every text.
    let small = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]});
    let before = caused(&bed).await;
    for (number, (what, document, outcome, status)) in [
        ("1 MB", large, "too_large", 503),
        ("21 keys", many, "too_many_keys", 503),
        ("no JSON", "<html>".to_owned(), "malformed", 503),
        // The document is in order, and has no key that could be meant: waiting would not help.
        ("wrong kty", with_kty("EC"), "fetched", 401),
        ("kty of a secret", with_kty("oct"), "fetched", 401),
        ("a key of small order", small.to_string(), "fetched", 401),
    ]
    .into_iter()
    .enumerate()
    {
        bed.emulator.set_faults(&serving(&document)).await;
        // A process of its own, for each makes one call a minute.
        let replica = bed.spawn_replica(&format!("plain-{number}")).await;
        for id in ["a", "b"] {
            let delivery = forger.v1a(id, &succeeded("batches/none"));
            assert_eq!(send(&replica, &delivery).await, status, "{what}");
        }
        assert_eq!(rejected(&replica, "no_usable_key").await, 2, "{what}");
        let fetches = format!("gemini_operator_receiver_jwks_fetches_total{{outcome=\"{outcome}\"}}");
        assert_eq!(metric(&replica, &fetches).await, 1, "{what}");
    }
    assert_eq!(caused(&bed).await, before, "nothing was written, and nobody asked");
    // The same delivery by a good document: the refusals were about the keys.
    bed.emulator.set_faults(&serving(&good.to_string())).await;
    let replica = bed.spawn_replica("plain-good").await;
    assert_eq!(send(&replica, &forger.v1a("a", &succeeded("batches/none"))).await, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_that_are_none() {
    let bed = bed_with("dynamic-signatures", options(false, json!({}))).await;
    for signature in ["DynamicV1a", "DynamicJwt"] {
        let webhook = make_webhook(&bed, signature).await;
        let forger = Forger::of(&webhook);
        bed.emulator.set_faults(&serving(&forger.document().to_string())).await;
        let replica = bed.spawn_replica(&format!("plain-{signature}")).await;
        let claims = forger.claims();
        let other = json!({"aud": "https://elsewhere.test", "exp": claims["exp"]});
        let ended = json!({"aud": forger.url, "exp": 1});
        let body = succeeded("batches/none");
        let token = |token: String| forger.delivery(&token, "m", &body);
        let good_token = rs256(KID, &claims);
        let (good, cases) = if signature == "DynamicV1a" {
            let public = forger.public_ed25519();
            let cases = vec![
                ("HMAC by the public key", forger.hmac("v1", &public, "m", &body), "wrong_scheme"),
                ("the same as v1a", forger.hmac("v1a", &public, "m", &body), "no_matching_signature"),
                ("a JWT", token(good_token), "wrong_scheme"),
                ("nothing but zeros", token(format!("v1a,{}==", "A".repeat(86))), "no_matching_signature"),
            ];
            (forger.v1a("good", &body), cases)
        } else {
            let public = forger::public_rsa();
            let cases = vec![
                ("alg none", token(alg_none(&claims)), "alg"),
                ("HS256 by the public key", token(hs256(&public, &claims)), "alg"),
                ("unknown kid", token(rs256("other", &claims)), "kid"),
                ("ended", token(rs256(KID, &ended)), "exp"),
                ("another's signature", token(format!("{good_token}A")), "signature"),
                ("v1a", forger.v1a("m", &body), "wrong_scheme"),
            ];
            (token(good_token), cases)
        };
        // Lets the replica have its keys, and its say about this webhook, before anything is counted.
        assert_eq!(send(&replica, &good).await, 204, "{signature}");
        bed.wait_webhook("dynamic", "told of the delivery", |webhook| {
            webhook.status.as_ref().is_some_and(|status| status.last_delivery.is_some())
        })
        .await;
        let before = caused(&bed).await;
        for (what, delivery, reason) in cases {
            let earlier = rejected(&replica, reason).await;
            assert_eq!(send(&replica, &delivery).await, 401, "{what}");
            assert_eq!(rejected(&replica, reason).await, earlier + 1, "{what}: not for {reason}");
        }
        assert_eq!(caused(&bed).await, before, "nothing was written, and nobody asked");
        assert_eq!(
            metric(&replica, "gemini_operator_receiver_jwks_fetches_total{outcome=\"fetched\"}").await,
            1
        );
        if signature == "DynamicJwt" {
            // A token that is the provider's, and for somebody else: told once, for nobody documents who it is for.
            for _ in 0..3 {
                assert_eq!(send(&replica, &token(rs256(KID, &other))).await, 401);
            }
            let told = bed
                .wait_webhook("dynamic", "told of the audience", |webhook| {
                    let delivery = webhook.status.as_ref().and_then(|status| status.last_delivery.as_ref());
                    delivery.is_some_and(|delivery| delivery.rejected.is_some())
                })
                .await;
            let rejected = told.status.unwrap().last_delivery.unwrap().rejected.unwrap();
            let audience = rejected.observed_audience.as_deref();
            assert_eq!((rejected.reason.as_str(), audience), ("aud", Some("https://elsewhere.test")));
        }
        bed.kubectl().run(&["delete", "gwh", "dynamic"]).await.expect();
    }
    let logs = std::fs::read_to_string(bed.dir.join("plain-DynamicJwt.log")).unwrap();
    assert!(logs.contains(r#""signatures":"jwt""#), "the log says what kind of signature came: {logs}");
}
