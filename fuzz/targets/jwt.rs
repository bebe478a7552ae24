//! Tokens with a good signature over any header and claims: the code behind the signature is reached, and whatever is
//! accepted fulfils the rules as they are read here a second time.
#![no_main]

use std::sync::LazyLock;

use data_encoding::BASE64URL_NOPAD;
use gemini_operator::receiver::signature::dynamic_jwt::{Expected, observed_audience};
use gemini_operator::receiver::signature::jwks::Jwks;
use gemini_operator::receiver::signature::{Scheme, verify};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

const AUDIENCE: &str = "https://hooks.example.com/v1/h/token";

#[derive(Arbitrary, Debug)]
struct Input {
    header: Header,
    claims: Claims,
    body: Vec<u8>,
    /// The body repeats the claims.
    body_of_claims: bool,
    /// Put behind the token.
    tail: Vec<u8>,
    issuer: Option<bool>,
    now: i64,
}

#[derive(Arbitrary, Debug)]
enum Header {
    Good,
    Raw(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
enum Claims {
    /// Good ones, with this instead of a member.
    With {
        place: u8,
        json: String,
    },
    Raw(Vec<u8>),
}

static PAIR: LazyLock<RsaKeyPair> = LazyLock::new(|| {
    RsaKeyPair::from_pkcs8(include_bytes!("../../src/receiver/signature/testdata/rsa_key_of_tests.pk8"))
        .unwrap()
});

static KEYS: LazyLock<Jwks> = LazyLock::new(|| {
    let public = PublicKeyComponents::<Vec<u8>>::from(PAIR.public_key());
    let [n, e] = [&public.n, &public.e].map(|number| BASE64URL_NOPAD.encode(number));
    let document = json!({"keys": [{"kty": "RSA", "kid": "k", "n": n, "e": e}]}).to_string();
    Jwks::parse(document.as_bytes()).unwrap()
});

fuzz_target!(|input: Input| {
    // Any time at which the good claims are good, so that their edges are near.
    let now = input.now % 1_000_000_000_000;
    let time = now.clamp(0, 999_999_999_999);
    let header = match input.header {
        Header::Good => br#"{"alg":"RS256","kid":"k"}"#.to_vec(),
        Header::Raw(bytes) => bytes,
    };
    let claims = match input.claims {
        Claims::Raw(bytes) => bytes,
        Claims::With { place, json } => {
            let mut claims =
                json!({"aud": AUDIENCE, "exp": time + 1, "nbf": time, "type": "ping", "iss": "google"});
            let names = ["aud", "exp", "nbf", "type", "data", "iss", "user_metadata", "timestamp"];
            claims[names[usize::from(place) % names.len()]] =
                serde_json::from_str(&json).unwrap_or(Value::String(json));
            claims.to_string().into_bytes()
        }
    };
    let body = if input.body_of_claims { claims.clone() } else { input.body };
    let signed = [&header, &claims].map(|bytes| BASE64URL_NOPAD.encode(bytes)).join(".");
    let mut signature = vec![0; PAIR.public().modulus_len()];
    PAIR.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    let mut token = format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature)).into_bytes();
    token.extend_from_slice(&input.tail);

    let issuer = input.issuer.map(|right| if right { "google" } else { "another" }.to_owned());
    let expected = Expected { audience: AUDIENCE.into(), issuer: issuer.clone() };
    let text = time.to_string();
    let headers = [
        ("webhook-id", &b"a"[..]),
        ("webhook-timestamp", text.as_bytes()),
        ("webhook-signature", &token[..]),
    ];
    let _ = observed_audience(headers, &KEYS, now, 300);
    if verify(Scheme::DynamicJwt(&KEYS, &expected), headers, &body, now, 300).is_err() {
        return;
    }
    // Tabs and spaces behind a header's value are not part of it.
    assert!(input.tail.iter().all(|byte| matches!(byte, b' ' | b'\t')));
    let header: Value = serde_json::from_slice(&header).unwrap();
    assert_eq!((&header["alg"], &header["kid"]), (&json!("RS256"), &json!("k")));
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let audience = &claims["aud"];
    assert!(audience == AUDIENCE || audience.as_array().unwrap().contains(&json!(AUDIENCE)));
    assert!(claims["exp"].as_f64().unwrap() > now as f64);
    assert!(claims["nbf"].is_null() || claims["nbf"].as_f64().unwrap() <= (now + 60) as f64);
    assert!(issuer.is_none_or(|issuer| claims["iss"] == issuer));
    if claims.get("type").or(claims.get("data")).is_some() {
        let body: Value = serde_json::from_slice(&body).unwrap();
        for name in ["type", "version", "timestamp", "data", "user_metadata"] {
            assert_eq!(body.get(name), claims.get(name));
        }
    }
});
