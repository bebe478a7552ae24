//! The rules beyond the vectors.

use ring::rand::SystemRandom;
use ring::signature::{KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair};
use serde_json::json;

use super::super::headers::{ID, SIGNATURE, TIMESTAMP};
use super::*;

const NOW: i64 = 1_787_256_625;
const AUDIENCE: &str = "https://hooks.example.com/v1/h/token";

fn rsa() -> RsaKeyPair {
    RsaKeyPair::from_pkcs8(include_bytes!("../testdata/rsa_key_of_tests.pk8")).unwrap()
}

/// The tests' key under these names.
fn jwks(kids: &[&str]) -> Jwks {
    let components = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(rsa().public_key());
    let [n, e] = [&components.n, &components.e].map(|number| BASE64URL_NOPAD.encode(number));
    let members: Vec<Value> =
        kids.iter().map(|kid| json!({"kty": "RSA", "kid": kid, "n": n, "e": e})).collect();
    Jwks::parse(json!({ "keys": members }).to_string().as_bytes()).unwrap()
}

fn sign_as(algorithm: &'static dyn RsaEncoding, header: &str, claims: &str) -> String {
    let signed = [header, claims].map(|text| BASE64URL_NOPAD.encode(text.as_bytes())).join(".");
    let rsa = rsa();
    let mut signature = vec![0; rsa.public().modulus_len()];
    rsa.sign(algorithm, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}

fn sign(header: &str, claims: &str) -> String {
    sign_as(&RSA_PKCS1_SHA256, header, claims)
}

const HEADER: &str = r#"{"alg":"RS256","kid":"k"}"#;

fn good_claims() -> Value {
    json!({"aud": AUDIENCE, "exp": NOW + 1})
}

fn judge_for(token: &str, body: &str, keys: &Jwks, issuer: Option<&str>) -> Result<usize, Rejection> {
    let headers = [(ID, "a"), (TIMESTAMP, "1787256625"), (SIGNATURE, token)];
    let headers = headers.map(|(name, value)| (name, value.as_bytes()));
    let expected = Expected { audience: AUDIENCE.into(), issuer: issuer.map(Into::into) };
    verify(headers, body.as_bytes(), keys, &expected, NOW, 300).map(|verdict| verdict.key)
}

fn judge(token: &str) -> Result<usize, Rejection> {
    judge_for(token, "{}", &jwks(&["k"]), None)
}

fn claims(change: &Value) -> Result<usize, Rejection> {
    let mut claims = good_claims();
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    judge(&sign(HEADER, &claims.to_string()))
}

#[test]
fn claims_and_their_edges() {
    for (change, wanted) in [
        (json!({}), Ok(0)),
        (json!({"iat": NOW + 1000, "iss": "anybody", "sub": 7}), Ok(0)),
        (json!({"exp": NOW}), Err(Rejection::Exp)),
        (json!({"exp": 1_787_256_625.5}), Ok(0)),
        (json!({"exp": 1e300}), Ok(0)),
        (json!({"exp": -1}), Err(Rejection::Exp)),
        (json!({"exp": u64::MAX}), Ok(0)),
        (json!({"exp": (NOW + 1).to_string()}), Err(Rejection::Exp)),
        (json!({"exp": null}), Err(Rejection::Exp)),
        (json!({"exp": true}), Err(Rejection::Exp)),
        (json!({"nbf": NOW + 60}), Ok(0)),
        (json!({"nbf": NOW + 61}), Err(Rejection::Nbf)),
        (json!({"nbf": "soon"}), Err(Rejection::Nbf)),
        (json!({"nbf": null}), Err(Rejection::Nbf)),
        (json!({"aud": [AUDIENCE]}), Ok(0)),
        (json!({"aud": ["other", AUDIENCE]}), Ok(0)),
        (json!({"aud": []}), Err(Rejection::Aud)),
        (json!({"aud": [[AUDIENCE]]}), Err(Rejection::Aud)),
        (json!({"aud": AUDIENCE.to_uppercase()}), Err(Rejection::Aud)),
        (json!({"aud": {}}), Err(Rejection::Aud)),
    ] {
        assert_eq!(claims(&change), wanted, "{change}");
    }
}

#[test]
fn the_issuer_counts_where_it_is_configured() {
    let token = |claims: Value| sign(HEADER, &claims.to_string());
    let mut claims = good_claims();
    let keys = jwks(&["k"]);
    assert_eq!(judge_for(&token(claims.clone()), "{}", &keys, Some("google")), Err(Rejection::Iss));
    claims["iss"] = json!("google ");
    assert_eq!(judge_for(&token(claims.clone()), "{}", &keys, Some("google")), Err(Rejection::Iss));
    claims["iss"] = json!("google");
    assert_eq!(judge_for(&token(claims), "{}", &keys, Some("google")), Ok(0));
}

#[test]
fn headers_of_the_token() {
    let good = good_claims().to_string();
    for (header, wanted) in [
        (r#"{"alg":"RS256","kid":"k","jku":"https://evil","typ":"at+jwt"}"#, Ok(0)),
        (r#"{"kid":"k"}"#, Err(Rejection::Alg)),
        (r#"{"alg":"rs256","kid":"k"}"#, Err(Rejection::Alg)),
        (r#"{"alg":["RS256"],"kid":"k"}"#, Err(Rejection::Alg)),
        (r#"{"alg":"RS256"}"#, Err(Rejection::Kid)),
        (r#"{"alg":"RS256","kid":7}"#, Err(Rejection::Kid)),
        (r#"{"alg":"RS256","kid":"K"}"#, Err(Rejection::Kid)),
        (r#"{"alg":"RS256","kid":"k","crit":["b64"],"b64":false}"#, Err(Rejection::Malformed)),
        (r#"["RS256"]"#, Err(Rejection::Malformed)),
        ("", Err(Rejection::Malformed)),
    ] {
        assert_eq!(judge(&sign(header, &good)), wanted, "{header}");
    }
}

#[test]
fn shapes_of_the_token() {
    let good = sign(HEADER, &good_claims().to_string());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    for (token, wanted) in [
        (good.clone(), Ok(0)),
        (format!("{good}."), Err(Rejection::Malformed)),
        (format!("{good}.{signature}"), Err(Rejection::Malformed)),
        (format!("{good}="), Err(Rejection::Malformed)),
        (format!("{good} {good}"), Err(Rejection::Malformed)),
        (format!("{signed}."), Err(Rejection::Signature)),
        (format!("{signed}.{}", &signature[4..]), Err(Rejection::Signature)),
        ("..".to_owned(), Err(Rejection::Malformed)),
        ("x".to_owned(), Err(Rejection::Malformed)),
        (format!("v1,{good}"), Err(Rejection::WrongScheme)),
        ("v1a,AAAA".to_owned(), Err(Rejection::WrongScheme)),
        (format!("{good} v1a,AAAA"), Err(Rejection::WrongScheme)),
        (format!("a.{}.b", "A".repeat(4096)), Err(Rejection::Malformed)),
        ("x ".repeat(9), Err(Rejection::TooManySignatures)),
    ] {
        assert_eq!(judge(&token), wanted, "{token}");
    }
    assert_eq!(judge(&sign(HEADER, "[]")), Err(Rejection::Malformed));
    // The other algorithms of the same key, by a header that tells a lie.
    let other = sign_as(&RSA_PKCS1_SHA512, HEADER, &good_claims().to_string());
    assert_eq!(judge(&other), Err(Rejection::Signature));
    // Each bit of the last letter that belongs to no byte would be another text for the same token.
    let last = *good.as_bytes().last().unwrap();
    let others = data_encoding::BASE64URL_NOPAD.specification().symbols;
    for other in others.bytes().filter(|other| *other != last) {
        let token = format!("{}{}", &good[..good.len() - 1], char::from(other));
        assert!(judge(&token).is_err(), "{token}");
    }
}

#[test]
fn keys_are_picked_by_name() {
    let token = sign(HEADER, &good_claims().to_string());
    assert_eq!(judge_for(&token, "{}", &jwks(&["j", "k"]), None), Ok(1));
    assert_eq!(judge_for(&token, "{}", &jwks(&["j"]), None), Err(Rejection::Kid));
    assert_eq!(judge_for(&token, "{}", &Jwks::default(), None), Err(Rejection::NoUsableKey));
    // Two keys of one name, of which the second is the right one.
    let mut keys = jwks(&["k", "k"]);
    keys.rsa[0].n[9] ^= 1;
    assert_eq!(judge_for(&token, "{}", &keys, None), Ok(1));
}

#[test]
fn an_event_in_the_claims_is_the_body_s() {
    let event = json!({"type": "batch.failed", "data": {"id": "batches/a"}});
    let with = |part: Value| {
        let mut claims = good_claims();
        claims.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
        sign(HEADER, &claims.to_string())
    };
    let keys = jwks(&["k"]);
    let mismatch = Err(Rejection::ClaimsBodyMismatch);
    for (part, body, wanted) in [
        // Without an event they bind nothing.
        (json!({}), "not JSON", Ok(0)),
        (json!({"email": "a@b"}), r#"{"type":"batch.failed"}"#, Ok(0)),
        (event.clone(), r#"{"data":{"id":"batches/a"}, "type":"batch.failed"}"#, Ok(0)),
        (json!({"email": "a@b", "type": "ping"}), r#"{"type":"ping"}"#, Ok(0)),
        (event.clone(), r#"{"data":{"id":"batches/b"},"type":"batch.failed"}"#, mismatch),
        (event.clone(), r#"{"data":{"id":"batches/a"},"type":"batch.succeeded"}"#, mismatch),
        (event.clone(), r#"{"data":{"id":"batches/a"}}"#, mismatch),
        (event.clone(), r#"{"data":{"id":"batches/a"},"type":"batch.failed","user_metadata":{}}"#, mismatch),
        (event.clone(), r#"{"data":{"id":"batches/a"},"type":"batch.failed","more":1}"#, mismatch),
        (event.clone(), "", mismatch),
        (event.clone(), "[]", mismatch),
        // The type alone does not free the rest.
        (json!({"type": "batch.failed"}), r#"{"data":{"id":"batches/a"},"type":"batch.failed"}"#, mismatch),
        (json!({"data": {}}), r#"{"data":{},"type":"batch.failed"}"#, mismatch),
        (json!({"data": {}, "timestamp": "t"}), r#"{"data":{}}"#, mismatch),
    ] {
        assert_eq!(judge_for(&with(part.clone()), body, &keys, None), wanted, "{part} {body}");
    }
}

#[test]
fn the_audience_is_shown_of_authentic_tokens_only() {
    let show = |token: &str| {
        let headers = [(ID, "a"), (TIMESTAMP, "1787256625"), (SIGNATURE, token)];
        observed_audience(headers.map(|(name, value)| (name, value.as_bytes())), &jwks(&["k"]), NOW, 300)
    };
    let token = |audience: Value| sign(HEADER, &json!({ "aud": audience }).to_string());
    assert_eq!(show(&token(json!("https://other\n"))).as_deref(), Some("https://other"));
    assert_eq!(show(&token(json!(["a", "b"]))).as_deref(), Some(r#"["a","b"]"#));
    assert_eq!(show(&token(json!("a".repeat(1000)))).map(|shown| shown.len()), Some(SHOWN));
    let forged = token(json!("a")).replace(&BASE64URL_NOPAD.encode(br#"{"aud":"a"}"#), "eyJhdWQiOiJiIn0");
    assert_eq!(show(&forged), None);
}
