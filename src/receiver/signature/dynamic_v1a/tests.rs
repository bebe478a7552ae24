//! The rules beyond the vectors.

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::json;

use super::super::headers::{ID, SIGNATURE, TIMESTAMP};
use super::*;

const NOW: i64 = 1_787_256_625;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn jwks(keys: &[SigningKey]) -> Jwks {
    let members: Vec<_> = keys
        .iter()
        .map(|key| BASE64URL_NOPAD.encode(key.verifying_key().as_bytes()))
        .map(|x| json!({"kty": "OKP", "crv": "Ed25519", "x": x}))
        .collect();
    Jwks::parse(json!({ "keys": members }).to_string().as_bytes()).unwrap()
}

fn sign(key: &SigningKey) -> String {
    format!("v1a,{}", BASE64.encode(&key.sign(b"a.1787256625.{}").to_bytes()))
}

fn judge(signature: &str, keys: &Jwks) -> Result<usize, Rejection> {
    let headers = [(ID, "a"), (TIMESTAMP, "1787256625"), (SIGNATURE, signature)];
    let headers = headers.map(|(name, value)| (name, value.as_bytes()));
    verify(headers, b"{}", keys, NOW, 300).map(|verdict| verdict.key)
}

#[test]
fn any_key_with_any_signature_in_any_order() {
    let keys = [key(1), key(2)];
    let set = jwks(&keys);
    let [first, second, other] = [sign(&keys[0]), sign(&keys[1]), sign(&key(3))];
    for (list, wanted) in [
        (vec![&first], Ok(0)),
        (vec![&second], Ok(1)),
        (vec![&other, &second], Ok(1)),
        (vec![&first, &other], Ok(0)),
        (vec![&other], Err(Rejection::NoMatchingSignature)),
    ] {
        let list: Vec<&str> = list.into_iter().map(String::as_str).collect();
        assert_eq!(judge(&list.join(" "), &set), wanted);
    }
}

#[test]
fn entries_of_other_schemes() {
    let (key, set) = (key(1), jwks(&[key(1)]));
    let good = sign(&key);
    for (list, wanted) in [
        (format!("v1,AAAA {good}"), Ok(0)),
        (format!("garbage {good} a.b.c"), Ok(0)),
        ("v1,AAAA".to_owned(), Err(Rejection::WrongScheme)),
        ("v2,AAAA".to_owned(), Err(Rejection::WrongScheme)),
        ("V1A,AAAA".to_owned(), Err(Rejection::WrongScheme)),
        ("eyJhbGciOiJSUzI1NiJ9.e30.AAAA".to_owned(), Err(Rejection::WrongScheme)),
        (good.replace("v1a,", "v1a, "), Err(Rejection::NoMatchingSignature)),
        (good.replace("==", ""), Err(Rejection::NoMatchingSignature)),
        (format!("{}{good}", "v1,x ".repeat(7)), Ok(0)),
        (format!("{}{good}", "v1,x ".repeat(8)), Err(Rejection::TooManySignatures)),
        (format!("{} {good}", "x".repeat(4096)), Err(Rejection::Malformed)),
    ] {
        assert_eq!(judge(&list, &set), wanted, "{list}");
    }
}

/// What is wrong with the delivery is said before that there is no key: only a good delivery waits for keys.
#[test]
fn no_key() {
    let none = Jwks::default();
    assert_eq!(judge(&sign(&key(1)), &none), Err(Rejection::NoUsableKey));
    assert_eq!(judge("v1,AAAA", &none), Err(Rejection::WrongScheme));
    let late =
        [(ID, "a"), (TIMESTAMP, "1"), (SIGNATURE, "v1a,")].map(|(name, value)| (name, value.as_bytes()));
    assert_eq!(verify(late, b"", &none, NOW, 300), Err(Rejection::TimestampTooOld));
}

/// Torsion: R of small order, and S = 0 or the sum's inverse, under an honest key.
#[test]
fn signatures_with_a_point_of_small_order() {
    let set = jwks(&[key(1)]);
    for first in [0_u8, 1, 0xec, 0xed, 0xee] {
        for last in [0_u8, 0x7f, 0x80, 0xff] {
            let mut signature = [if matches!(last, 0 | 0x80) { 0 } else { 0xff }; 64];
            (signature[0], signature[31]) = (first, last);
            signature[32..].fill(0);
            let text = format!("v1a,{}", BASE64.encode(&signature));
            assert_eq!(judge(&text, &set), Err(Rejection::NoMatchingSignature));
        }
    }
}
