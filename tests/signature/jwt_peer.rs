//! Our parser of tokens and the `jsonwebtoken` crate judge the same tokens. That crate has no RSA of its own here: it
//! is lent ring's, so that what differs is how they read, not how they calculate.

use std::cell::Cell;
use std::sync::Once;

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::SignatureError;
use gemini_operator::receiver::signature::dynamic_jwt::Expected;
use gemini_operator::receiver::signature::jwks::Jwks;
use gemini_operator::receiver::signature::{Scheme, verify};
use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::signature::Verifier;
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, Validation, decode, decode_header};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    KeyPair, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use serde_json::{Value, json};

const AUDIENCE: &str = "https://hooks.example.com/v1/h/token";

struct RingVerifier {
    n: Vec<u8>,
    e: Vec<u8>,
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        RsaPublicKeyComponents { n: &self.n, e: &self.e }
            .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            .map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        Algorithm::RS256
    }
}

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::InvalidAlgorithm.into()),
    verifier_factory: |algorithm, key| match (algorithm, key.kind()) {
        (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, e }) => {
            Ok(Box::new(RingVerifier { n: n.clone(), e: e.clone() }))
        }
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    },
    key_utils: KeyUtils::new_unimplemented(),
};

struct Keys {
    pair: RsaKeyPair,
    jwks: Jwks,
    peer: DecodingKey,
}

impl Keys {
    fn new() -> Self {
        static INSTALL: Once = Once::new();
        INSTALL.call_once(|| PROVIDER.install_default().unwrap());
        let file = include_bytes!("../../src/receiver/signature/testdata/rsa_key_of_tests.pk8");
        let pair = RsaKeyPair::from_pkcs8(file).unwrap();
        let public = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
        let [n, e] = [&public.n, &public.e].map(|number| BASE64URL_NOPAD.encode(number));
        let document = json!({"keys": [{"kty": "RSA", "kid": "k", "n": n, "e": e}]}).to_string();
        Self {
            pair,
            jwks: Jwks::parse(document.as_bytes()).unwrap(),
            peer: DecodingKey::from_rsa_components(&n, &e).unwrap(),
        }
    }

    fn sign(&self, header: &str, claims: &str) -> String {
        let signed = [header, claims].map(|text| BASE64URL_NOPAD.encode(text.as_bytes())).join(".");
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
    }

    fn ours(&self, token: &[u8], now: i64) -> bool {
        let time = now.to_string();
        let headers =
            [("webhook-id", &b"a"[..]), ("webhook-timestamp", time.as_bytes()), ("webhook-signature", token)];
        let expected = Expected { audience: AUDIENCE.into(), issuer: None };
        verify(Scheme::DynamicJwt(&self.jwks, &expected), headers, b"", now, 300).is_ok()
    }

    fn theirs(&self, token: &[u8]) -> bool {
        let mut validation = Validation::new(Algorithm::RS256);
        validation.leeway = 0;
        validation.validate_nbf = true;
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "aud"]);
        // The choice of the key is its caller's.
        let named = decode_header(token).is_ok_and(|header| header.kid.as_deref() == Some("k"));
        named && decode::<Value>(token, &self.peer, &validation).is_ok()
    }
}

fn now() -> i64 {
    i64::try_from(jsonwebtoken::get_current_timestamp()).unwrap()
}

/// The one thing that they differ in.
#[test]
fn leeway_is_for_the_beginning_only() {
    let keys = Keys::new();
    let time = now();
    let token = |start: i64| {
        let claims = json!({"aud": AUDIENCE, "exp": time + 600, "nbf": start});
        keys.sign(r#"{"alg":"RS256","kid":"k"}"#, &claims.to_string()).into_bytes()
    };
    let (ready, early) = (token(time), token(time + 50));
    assert!(keys.ours(&ready, time) && keys.theirs(&ready));
    // The maker's clock may be a minute ahead, while a token ends when it ends. There it is one leeway for both.
    assert!(keys.ours(&early, time) && !keys.theirs(&early));
}

/// So much good that many deliveries are good in everything.
fn mostly(good: &[Value], bad: &[Value]) -> impl Strategy<Value = Value> + use<> {
    prop_oneof![6 => prop::sample::select(good.to_vec()), 1 => prop::sample::select(bad.to_vec())]
}

#[test]
fn both_judge_alike() {
    let keys = Keys::new();
    let algorithms = mostly(
        &[json!("RS256")],
        &[json!("RS512"), json!("none"), json!("HS256"), json!("rs256"), json!(1), json!(null)],
    );
    let kids = mostly(&[json!("k")], &[json!("K"), json!(""), json!(null)]);
    let audiences = mostly(
        &[json!(AUDIENCE), json!([AUDIENCE]), json!(["x", AUDIENCE])],
        &[json!([]), json!("https://hooks.example.com/v1/h/token/"), json!(7), json!(null)],
    );
    // Far from the edges: the other one asks the clock itself.
    let ends = mostly(&[json!(600), json!(0.5)], &[json!(-600), json!("600"), json!(null)]);
    let starts = mostly(&[json!(null), json!(-600)], &[json!(600), json!("soon")]);
    let critical = mostly(&[json!(null)], &[json!(["b64"])]);
    let changes = prop::option::weighted(0.2, (any::<prop::sample::Index>(), 1_u8..=255));
    let tails = prop_oneof![4 => Just(""), 1 => prop::sample::select(vec![".", "=", ".AAAA", "AAAA"])];
    let strategy = (algorithms, kids, audiences, ends, starts, critical, changes, tails);
    let (accepted, refused) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(Config { cases: 1500, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&strategy, |(algorithm, kid, audience, end, start, critical, change, tail)| {
        let time = now();
        // A member that is null here is left out of the token.
        let object = |members: Vec<(&str, Value)>| {
            Value::Object(
                members.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.into(), v)).collect(),
            )
        };
        let at = |offset: Value| match offset.as_i64() {
            Some(offset) => json!(time + offset),
            // Fractions and texts.
            None if offset.is_f64() => serde_json::from_str(&format!("{}.5", time + 600)).unwrap(),
            None => offset,
        };
        let header = object(vec![("alg", algorithm), ("kid", kid), ("crit", critical)]);
        let claims = object(vec![("aud", audience), ("exp", at(end)), ("nbf", at(start))]);
        let mut token = keys.sign(&header.to_string(), &claims.to_string()).into_bytes();
        token.extend_from_slice(tail.as_bytes());
        if let Some((place, flip)) = change {
            let place = place.index(token.len());
            token[place] ^= flip;
        }
        // White space at the ends is taken off before a token is one.
        let token = token.trim_ascii();
        let verdicts = (keys.ours(token, time), keys.theirs(token));
        prop_assert_eq!(verdicts.0, verdicts.1, "{} {} {:?}", header, claims, str::from_utf8(token));
        let counter = if verdicts.0 { &accepted } else { &refused };
        counter.set(counter.get() + 1);
        Ok(())
    });
    outcome.unwrap();
    println!("{} accepted, {} refused", accepted.get(), refused.get());
    // Otherwise they would agree by refusing everything.
    assert!(accepted.get() > 150 && refused.get() > 200, "{accepted:?} {refused:?}");
}
