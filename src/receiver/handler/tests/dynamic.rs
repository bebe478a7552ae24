//! Routes whose deliveries are proven by the provider's public keys.

use ed25519_dalek::{Signer, SigningKey};

use super::*;
use crate::receiver::index::tests::batch_in_doubt;
use crate::receiver::public_keys::FetchError;
use crate::receiver::public_keys::tests::jwks;
use crate::receiver::signature::jwks::Jwks;

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

impl World {
    /// The usual one, and `t-dyn` of namespace a.
    fn with_dynamic(signature: &str, jwt: &serde_json::Value) -> Self {
        let world = Self::new();
        let mut spec = json!({"mode": "Dynamic", "signature": signature});
        if jwt.is_object() {
            spec["jwt"] = jwt.clone();
        }
        let quiet = json!({"lastDelivery": {"time": "2026-08-20T20:09:55Z"}});
        world.handler.routes.apply(0, Change::Applied(webhook_with("a", "uid-dyn", "t-dyn", &spec, &quiet)));
        world
    }

    fn v1a() -> Self {
        Self::with_dynamic("DynamicV1a", &json!(null))
    }

    async fn deliver_signed(&self, by: &SigningKey, id: &str, body: &str) -> u16 {
        self.send(v1a_signed(by, id, body)).await
    }
}

fn v1a_signed(by: &SigningKey, id: &str, body: &str) -> Request<Body> {
    let signature = by.sign(format!("{id}.{NOW}.{body}").as_bytes()).to_bytes();
    with_signature(&format!("v1a,{}", data_encoding::BASE64.encode(&signature)), id, body)
}

fn with_signature(signature: &str, id: &str, body: &str) -> Request<Body> {
    Request::post("/v1/h/t-dyn")
        .header("webhook-id", id)
        .header("webhook-timestamp", NOW)
        .header("webhook-signature", signature)
        .body(Body::from(body.to_owned()))
        .unwrap()
}

#[tokio::test]
async fn a_delivery_is_proven_by_keys_that_are_fetched_for_it() {
    let world = World::v1a();
    assert_eq!(world.deliver("t-a", "m", SUCCEEDED).await, 204);
    assert_eq!(world.source.calls(), 0, "another scheme's delivery asks for no public keys");
    world.source.answer(Ok(jwks(&[&key(1), &key(2)])));
    assert_eq!(world.deliver_signed(&key(2), "m1", SUCCEEDED).await, 204);
    assert_eq!(world.deliver_signed(&key(2), "m1", SUCCEEDED).await, 204);
    assert_eq!((world.source.calls(), world.counted(Outcome::Duplicate)), (1, 1));
    assert_eq!(world.handler.public_keys.held().unwrap().ed25519.len(), 2);
}

/// What is wrong with a delivery by itself is said without keys, and nobody is asked for any.
#[tokio::test]
async fn strangers_cause_one_call_and_no_writes() {
    let world = World::v1a();
    let good = || v1a_signed(&key(1), "m", SUCCEEDED);
    for (request, reason) in [
        (with_signature("v1,AAAA", "m", ""), Rejection::WrongScheme),
        (with_signature("e30.e30.AAAA", "m", ""), Rejection::WrongScheme),
        (with(good(), "webhook-id", "n"), Rejection::DuplicateHeader),
        (with(good(), "x-goog-signature", "00"), Rejection::MixedSchemes),
    ] {
        assert_eq!(world.send(request).await, 401, "{reason:?}");
        assert!(world.handler.metrics.rejected(reason) >= 1, "{reason:?}");
    }
    assert_eq!(world.source.calls(), 0);
    world.source.answer(Ok(jwks(&[&key(1)])));
    for n in 0..1000 {
        assert_eq!(world.deliver_signed(&key(9), &n.to_string(), SUCCEEDED).await, 401);
    }
    world.settle().await;
    assert_eq!(world.source.calls(), 1);
    assert_eq!(world.handler.metrics.rejected(Rejection::NoMatchingSignature), 1000);
    assert!(world.patch.writes().is_empty());
    assert_eq!(world.deliver_signed(&key(1), "m", SUCCEEDED).await, 204);
}

#[tokio::test]
async fn without_keys_the_sender_comes_again() {
    let world = World::v1a();
    world.source.answer(Err(FetchError::Status(503)));
    for id in ["1", "2"] {
        let answer = world.handler.handle(v1a_signed(&key(1), id, SUCCEEDED)).await;
        assert_eq!((answer.status().as_u16(), answer.headers().contains_key(RETRY_AFTER)), (503, true));
    }
    assert_eq!((world.source.calls(), world.handler.metrics.rejected(Rejection::NoUsableKey)), (1, 2));
    world.settle().await;
    assert!(world.patch.writes().is_empty());
}

/// The document was had and holds no key for this scheme: nothing is to be waited for.
#[tokio::test]
async fn a_document_without_a_key_for_this_scheme() {
    let world = World::v1a();
    world.source.answer(Ok(Jwks::parse(br#"{"keys":[{"kty":"EC"},{"kty":"RSA"}]}"#).unwrap()));
    assert_eq!(world.deliver_signed(&key(1), "m", SUCCEEDED).await, 401);
    assert_eq!(world.handler.metrics.rejected(Rejection::NoUsableKey), 1);
}

#[tokio::test]
async fn a_marker_finds_the_batch_whose_job_has_no_name_yet() {
    let world = World::v1a();
    world.source.answer(Ok(jwks(&[&key(1)])));
    world.handler.index.apply(0, Change::Applied(batch_in_doubt("a", "z", "uid-z", "k")));
    world.handler.index.apply(0, Change::Applied(batch_in_doubt("b", "w", "uid-w", "l")));
    let event = |marker: &str| {
        let metadata = format!(r#""user_metadata":{{"submitKey":"{marker}"}},"data""#);
        SUCCEEDED.replace("batches/1", "batches/9").replace(r#""data""#, &metadata)
    };
    // Another attempt's, another namespace's, and one that came through a registered webhook.
    assert_eq!(world.deliver_signed(&key(1), "m1", &event("k.2")).await, 204);
    assert_eq!(world.deliver_signed(&key(1), "m2", &event("l.1")).await, 204);
    assert_eq!(world.deliver("t-a", "m3", &event("k.1")).await, 204);
    assert_eq!((world.counted(Outcome::Early), world.counted(Outcome::Foreign)), (2, 1));
    assert!(world.events().is_empty());
    assert_eq!(world.deliver_signed(&key(1), "m4", &event("k.1")).await, 204);
    let (target, status) = world.patch.writes().pop().unwrap();
    assert_eq!((&*target.uid, &status["lastEvent"]["remoteName"]), ("uid-z", &json!("batches/9")));
    assert_eq!(world.counted(Outcome::Accepted), 1);
}

mod jwt {
    use ring::rand::SystemRandom;
    use ring::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};

    use super::*;

    fn rsa() -> RsaKeyPair {
        RsaKeyPair::from_pkcs8(include_bytes!("../../signature/testdata/rsa_key_of_tests.pk8")).unwrap()
    }

    fn document(kid: &str) -> Jwks {
        let components = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(rsa().public_key());
        let [n, e] = [&components.n, &components.e].map(|part| data_encoding::BASE64URL_NOPAD.encode(part));
        let member = json!({"kty": "RSA", "kid": kid, "n": n, "e": e});
        Jwks::parse(json!({ "keys": [member] }).to_string().as_bytes()).unwrap()
    }

    fn token(kid: &str, audience: &str) -> String {
        let header = json!({"alg": "RS256", "kid": kid}).to_string();
        let claims = json!({"aud": audience, "exp": NOW + 60}).to_string();
        let signed =
            [header, claims].map(|part| data_encoding::BASE64URL_NOPAD.encode(part.as_bytes())).join(".");
        let mut signature = vec![0; rsa().public().modulus_len()];
        rsa().sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", data_encoding::BASE64URL_NOPAD.encode(&signature))
    }

    #[tokio::test]
    async fn verdicts() {
        let world = World::with_dynamic("DynamicJwt", &json!({"audience": "me"}));
        world.source.answer(Ok(document("k")));
        let unsigned = data_encoding::BASE64URL_NOPAD.encode(br#"{"alg":"none"}"#);
        for (token, wanted, reason) in [
            (format!("{unsigned}.e30."), 401, Some(Rejection::Alg)),
            (token("k", "me"), 204, None),
            (token("other", "me"), 401, Some(Rejection::Kid)),
            (token("k", "me") + "=", 401, Some(Rejection::Malformed)),
            (token("k", "me") + "A", 401, Some(Rejection::Signature)),
        ] {
            assert_eq!(world.send(with_signature(&token, "m", SUCCEEDED)).await, wanted, "{reason:?}");
            assert_eq!(reason.map_or(1, |reason| world.handler.metrics.rejected(reason)), 1, "{reason:?}");
        }
        assert_eq!((world.source.calls(), world.events().len()), (1, 1));
    }

    #[tokio::test]
    async fn to_whom_a_token_is_addressed_is_told_once() {
        let world = World::with_dynamic("DynamicJwt", &json!({"audience": "me"}));
        world.source.answer(Ok(document("k")));
        for _ in 0..5 {
            assert_eq!(world.send(with_signature(&token("k", "somebody"), "m", SUCCEEDED)).await, 401);
            world.settle().await;
        }
        let [report] = &world.reports()[..] else { panic!("{:?}", world.reports()) };
        let wanted = json!({"reason": "aud", "time": "2026-08-20T20:10:25Z", "observedAudience": "somebody"});
        assert_eq!(report["rejected"], wanted);
        assert_eq!(report["time"], "2026-08-20T20:09:55Z", "the rest stays");
    }
}
