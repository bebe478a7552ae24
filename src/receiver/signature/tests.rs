//! All schemes by the one entry: the vectors, and what holds for each of them.

use data_encoding::{BASE64, BASE64URL_NOPAD};
use ed25519_dalek::{Signer, SigningKey};
use hmac::{Hmac, KeyInit, Mac};
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::json;
use sha2::Sha256;

use super::headers::{ID, SIGNATURE, TIMESTAMP, X_GOOG_SIGNATURE};
use super::jwks::Jwks;
use super::vectors::{self, NOW, Vector};
use super::*;

fn judge_vector(vector: &Vector) -> Result<(), Rejection> {
    let headers = vector.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let parse = |text: &[u8]| standard_v1::Key::parse(str::from_utf8(text).unwrap());
    let jwks = || Jwks::parse(&vector.jwks).unwrap();
    let judge =
        |scheme: Scheme<'_>| verify(scheme, headers, &vector.body, vector.now, vector.tolerance).map(drop);
    match vector.scheme.as_str() {
        "StandardWebhooks" => {
            let keys: Vec<_> = vector.secrets.iter().map(|text| parse(text)).collect::<Result<_, _>>()?;
            judge(Scheme::StandardWebhooks(&keys))
        }
        "XGoogSignature" => {
            let others: Vec<_> =
                vector.signing_secrets.iter().map(|text| parse(text.as_bytes()).unwrap()).collect();
            let keys = vector.secrets.iter().map(|bytes| x_goog::Key::parse(bytes, &others));
            judge(Scheme::XGoogSignature(&keys.collect::<Result<Vec<_>, _>>()?))
        }
        "DynamicV1a" => judge(Scheme::DynamicV1a(&jwks())),
        "DynamicJwt" => {
            let expected = dynamic_jwt::Expected { audience: vector.audience.clone(), issuer: None };
            judge(Scheme::DynamicJwt(&jwks(), &expected))
        }
        other => panic!("{other}"),
    }
}

#[test]
fn all_vectors() {
    for vector in vectors::all() {
        let verdict = judge_vector(&vector).map_err(Rejection::as_str);
        match vector.refused.as_deref() {
            None => assert_eq!(verdict, Ok(()), "{}", vector.name),
            Some("") => assert!(verdict.is_err(), "{}", vector.name),
            Some(reason) => assert_eq!(verdict, Err(reason), "{}", vector.name),
        }
    }
}

/// What another webhook's keys make valid is of no use here: each vector on the routes of the other schemes.
#[test]
fn no_scheme_accepts_what_is_another_s() {
    let all = vectors::all();
    let key = [standard_v1::Key::parse("whsec_8bu+XSSczpNiAB71OJD7oFB40AVGsKu5").unwrap()];
    let goog = [x_goog::Key::parse(b"article-shared-secret-0123456789", &key).unwrap()];
    let keys_of = |name: &str| {
        let vector = all.iter().find(|vector| vector.name.contains(name)).unwrap();
        (Jwks::parse(&vector.jwks).unwrap(), vector.audience.clone())
    };
    let (v1a, _) = keys_of("DynamicV1a valid_key_1_of_3");
    let (jwt, audience) = keys_of("DynamicJwt valid_event_in_claims");
    let expected = dynamic_jwt::Expected { audience, issuer: None };
    let schemes = [
        ("StandardWebhooks", Scheme::StandardWebhooks(&key)),
        ("XGoogSignature", Scheme::XGoogSignature(&goog)),
        ("DynamicV1a", Scheme::DynamicV1a(&v1a)),
        ("DynamicJwt", Scheme::DynamicJwt(&jwt, &expected)),
    ];
    let mut own = 0;
    for vector in all.iter().filter(|vector| vector.refused.is_none()) {
        for (name, scheme) in schemes {
            let headers = vector.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
            let accepted = verify(scheme, headers, &vector.body, vector.now, vector.tolerance).is_ok();
            // A header may hold `v1` and `v1a` entries for two kinds of receivers; those of the vectors are no such.
            assert!(!accepted || name == vector.scheme, "{} accepted by {name}", vector.name);
            own += usize::from(accepted);
        }
    }
    assert!(own >= 20, "{own}");
}

/// A sender of each scheme, with keys of its own.
struct Senders {
    standard: Vec<standard_v1::Key>,
    mac: Hmac<Sha256>,
    ed25519: SigningKey,
    rsa: RsaKeyPair,
    jwks: Jwks,
    expected: dynamic_jwt::Expected,
    goog: Vec<x_goog::Key>,
}

const SECRET: &[u8] = b"a secret of somebody, 32 bytes and more";
const SCHEMES: [&str; 4] = ["StandardWebhooks", "DynamicV1a", "DynamicJwt", "XGoogSignature"];

impl Senders {
    fn new() -> Self {
        let ed25519 = SigningKey::from_bytes(&[7; 32]);
        let rsa = RsaKeyPair::from_pkcs8(include_bytes!("testdata/rsa_key_of_tests.pk8")).unwrap();
        let encode = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        let components = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(rsa.public_key());
        let document = json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "x": encode(ed25519.verifying_key().as_bytes())},
            {"kty": "RSA", "kid": "k", "n": encode(&components.n), "e": encode(&components.e)},
        ]});
        Self {
            standard: vec![standard_v1::Key::parse(&BASE64.encode(SECRET)).unwrap()],
            mac: Hmac::new_from_slice(SECRET).unwrap(),
            ed25519,
            rsa,
            jwks: Jwks::parse(document.to_string().as_bytes()).unwrap(),
            expected: dynamic_jwt::Expected { audience: "https://h/v1/h/t".into(), issuer: None },
            goog: vec![x_goog::Key::parse(SECRET, &[]).unwrap()],
        }
    }

    /// Id, time stamp, signature and body of a delivery, all of them good.
    fn delivery(&self, scheme: &str, id: &str, body: &[u8]) -> [Vec<u8>; 4] {
        let text = NOW.to_string();
        let signed = [id.as_bytes(), b".", text.as_bytes(), b".", body].concat();
        let signature = match scheme {
            "StandardWebhooks" => {
                let mac = self.mac.clone().chain_update(&signed).finalize().into_bytes();
                format!("v1,{}", BASE64.encode(&mac))
            }
            "DynamicV1a" => format!("v1a,{}", BASE64.encode(&self.ed25519.sign(&signed).to_bytes())),
            "DynamicJwt" => {
                // Claims that repeat the event: nothing else binds a body.
                let mut claims: serde_json::Value = serde_json::from_slice(body).unwrap();
                claims["aud"] = json!(self.expected.audience);
                claims["exp"] = json!(NOW + 300);
                let encode = |value: serde_json::Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
                let signed = format!("{}.{}", encode(json!({"alg": "RS256", "kid": "k"})), encode(claims));
                let mut signature = vec![0; self.rsa.public().modulus_len()];
                let random = SystemRandom::new();
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).unwrap();
                format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
            }
            _ => {
                let mac = self.mac.clone().chain_update(body).finalize().into_bytes();
                return [vec![], vec![], HEXLOWER.encode(&mac).into_bytes(), body.to_vec()];
            }
        };
        [id.as_bytes().to_vec(), text.into_bytes(), signature.into_bytes(), body.to_vec()]
    }

    fn scheme(&self, scheme: &str) -> Scheme<'_> {
        match scheme {
            "StandardWebhooks" => Scheme::StandardWebhooks(&self.standard),
            "DynamicV1a" => Scheme::DynamicV1a(&self.jwks),
            "DynamicJwt" => Scheme::DynamicJwt(&self.jwks, &self.expected),
            _ => Scheme::XGoogSignature(&self.goog),
        }
    }

    fn judge<'a>(&self, scheme: &str, parts: &'a [Vec<u8>; 4]) -> Result<Accepted<'a>, Rejection> {
        let [id, timestamp, signature, body] = parts;
        let standard = [(ID, &id[..]), (TIMESTAMP, &timestamp[..]), (SIGNATURE, &signature[..])];
        let goog = [(X_GOOG_SIGNATURE, &signature[..])];
        let headers: &[(&str, &[u8])] = if scheme == "XGoogSignature" { &goog } else { &standard };
        verify(self.scheme(scheme), headers.iter().copied(), body, NOW, 300)
    }
}

/// A body with an event, and some text in it.
fn body(words: &str) -> Vec<u8> {
    json!({"type": "batch.succeeded", "data": {"id": "batches/a", "words": words}}).to_string().into_bytes()
}

thread_local! {
    static SENDERS: Senders = Senders::new();
}

proptest! {
    #[test]
    fn what_was_signed_is_accepted(id in "[!-~]{1,128}", words in ".{0,80}", scheme in 0_usize..4) {
        SENDERS.with(|senders| {
            let scheme = SCHEMES[scheme];
            let parts = senders.delivery(scheme, &id, &body(&words));
            let accepted = senders.judge(scheme, &parts).map_err(Rejection::as_str);
            let accepted = accepted.map(|accepted| (accepted.id.into_owned(), accepted.timestamp, accepted.key));
            match scheme {
                "StandardWebhooks" => prop_assert_eq!(accepted, Ok((id, Some(NOW), 0))),
                "DynamicV1a" => prop_assert_eq!(accepted, Ok((id, Some(NOW), 0))),
                "DynamicJwt" => {
                    let id = format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(parts[2..].concat())));
                    prop_assert_eq!(accepted, Ok((id, Some(NOW), 0)));
                }
                _ => {
                    let id = format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(&parts[3])));
                    prop_assert_eq!(accepted, Ok((id, None, 0)));
                }
            }
            Ok(())
        })?;
    }

    /// For each scheme, each part that it has, and each way to change one byte.
    #[test]
    fn any_changed_byte_is_refused(
        id in "[!-~]{1,40}",
        words in ".{0,40}",
        scheme in 0_usize..4,
        part in 0_usize..4,
        place: prop::sample::Index,
        flip in 1_u8..=255,
    ) {
        SENDERS.with(|senders| {
            let scheme = SCHEMES[scheme];
            let good = senders.delivery(scheme, &id, &body(&words));
            let mut parts = good.clone();
            if parts[part].is_empty() {
                return Ok(());
            }
            let place = place.index(parts[part].len());
            parts[part][place] ^= flip;
            let Ok(accepted) = senders.judge(scheme, &parts) else { return Ok(()) };
            prop_assert_eq!(scheme, "DynamicJwt");
            match part {
                // A JWT binds neither id nor time stamp: whoever changes them repeats the same delivery.
                0 | 1 => prop_assert_eq!(accepted.id, senders.judge(scheme, &good).unwrap().id),
                2 => prop_assert!(false, "a changed token was accepted"),
                // It binds the event, not its spelling.
                _ => {
                    let event = |body: &[u8]| serde_json::from_slice::<serde_json::Value>(body).unwrap();
                    prop_assert_eq!(event(&parts[3]), event(&good[3]));
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn nothing_panics(
        parts: [Vec<u8>; 4],
        prefix in prop::sample::select(vec!["", "v1,", "v1a,", "e30.e30.", "eyJhbGciOiJSUzI1NiIsImtpZCI6ImsifQ."]),
        scheme in 0_usize..4,
        real in any::<bool>(),
        now: i64,
        tolerance: i64,
    ) {
        SENDERS.with(|senders| {
            let mut parts = parts;
            parts[2].splice(0..0, prefix.bytes());
            if real {
                (parts[0], parts[1]) = (b"a".to_vec(), b"1".to_vec());
            }
            let headers = [(ID, &parts[0][..]), (TIMESTAMP, &parts[1][..]), (SIGNATURE, &parts[2][..])];
            let scheme = senders.scheme(SCHEMES[scheme]);
            prop_assert!(verify(scheme, headers, &parts[3], now, tolerance).is_err());
            let goog = [(X_GOOG_SIGNATURE, &parts[2][..])];
            prop_assert!(verify(scheme, goog, &parts[3], now, tolerance).is_err());
            Ok(())
        })?;
    }
}
