//! The vectors, the rules beyond them, and properties.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::super::headers::{ID, MAX_LIST, SIGNATURE, TIMESTAMP, X_GOOG_SIGNATURE as FOREIGN};
use super::*;

#[derive(Deserialize)]
struct Vector {
    name: String,
    now: i64,
    tolerance_s: i64,
    secrets: Vec<String>,
    headers: BTreeMap<String, String>,
    body_base64: String,
    expect: String,
    reason: Option<String>,
}

fn run(vector: &Vector) -> Result<(), Rejection> {
    let keys = vector.secrets.iter().map(|s| Key::parse(s)).collect::<Result<Vec<_>, _>>()?;
    let body = BASE64.decode(vector.body_base64.as_bytes()).unwrap();
    let headers = vector.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    verify(headers, &body, &keys, vector.now, vector.tolerance_s).map(drop)
}

#[test]
fn all_vectors() {
    let vectors: Vec<Vector> =
        serde_json::from_str(include_str!("../testdata/standard_webhooks_hmac.json")).unwrap();
    assert_eq!(vectors.len(), 32);
    for vector in vectors {
        let verdict = run(&vector).map_err(Rejection::as_str);
        let wanted = match vector.expect.as_str() {
            "accept" => Ok(()),
            "reject" => Err(vector.reason.as_deref().unwrap()),
            other => panic!("{other}"),
        };
        assert_eq!(verdict, wanted, "{}", vector.name);
    }
}

#[test]
fn vectors_of_other_implementations() {
    for (secret, id, timestamp, body, signature) in [
        (
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            1_649_367_553,
            r#"{"email":"test@example.com","username":"test_user"}"#,
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        ),
        (
            "whsec_plJ3nmyCDGBKInavdOK15jsl",
            "msg_loFOjxBNrRLzqYUf",
            1_731_705_121,
            r#"{"event_type":"ping","data":{"success":true}}"#,
            "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
        ),
    ] {
        let text = timestamp.to_string();
        let headers = [(ID, id), (TIMESTAMP, text.as_str()), (SIGNATURE, signature)];
        let headers = headers.map(|(name, value)| (name, value.as_bytes()));
        let keys = [Key::parse(secret).unwrap()];
        let verdict = verify(headers, body.as_bytes(), &keys, timestamp, 300);
        assert_eq!(verdict, Ok(Verdict { id, timestamp, key: 0 }));
    }
}

const NOW: i64 = 1_787_256_625;
const SECRET: &str = "whsec_8bu+XSSczpNiAB71OJD7oFB40AVGsKu5";

fn sign(key: &Key, id: &[u8], timestamp: &[u8], body: &[u8]) -> Vec<u8> {
    let code = key.0.code([id, b".", timestamp, b".", body]);
    format!("v1,{}", BASE64.encode(&code.into_bytes())).into_bytes()
}

fn judge(id: &[u8], timestamp: &[u8], signature: &[u8], body: &[u8]) -> Result<usize, Rejection> {
    let keys = [Key::parse(SECRET).unwrap()];
    verify([(ID, id), (TIMESTAMP, timestamp), (SIGNATURE, signature)], body, &keys, NOW, 300)
        .map(|verdict| verdict.key)
}

/// Correctly signed over whatever the texts are, so that only the rule on the text can refuse it.
fn signed(id: &[u8], timestamp: &[u8]) -> Result<usize, Rejection> {
    judge(id, timestamp, &sign(&Key::parse(SECRET).unwrap(), id, timestamp, b"{}"), b"{}")
}

#[test]
fn texts_of_time_stamp_and_id() {
    assert_eq!(signed(b"msg_1", b"1787256625"), Ok(0));
    assert_eq!(signed(b"a.1787256625", b"1787256625"), Ok(0));
    for text in ["+1787256625", "01787256625", "1787256625.0", "1787256625x", "-9223372036854775808", "00"] {
        assert_eq!(signed(b"a", text.as_bytes()), Err(Rejection::InvalidTimestamp), "{text}");
    }
    assert_eq!(signed(b"a", b"0"), Err(Rejection::TimestampTooOld));
    assert_eq!(signed(b"a", b"999999999999"), Err(Rejection::TimestampTooNew));
    assert_eq!(signed(&[b'a'; 128], b"1787256625"), Ok(0));
    for id in [&[b'a'; 129][..], b"a b", b"a\x7f", "\u{e9}".as_bytes()] {
        assert_eq!(signed(id, b"1787256625"), Err(Rejection::BadId));
    }
}

#[test]
fn exactly_one_of_each_header() {
    let key = [Key::parse(SECRET).unwrap()];
    let signature = sign(&key[0], b"a", b"1787256625", b"{}");
    let good: Vec<(&str, &[u8])> =
        vec![("Webhook-Id", b"a"), ("WEBHOOK-TIMESTAMP", b"1787256625"), (SIGNATURE, &signature)];
    let judge = |headers: Vec<(&'static str, &[u8])>| {
        let headers: Vec<(&str, &[u8])> = headers;
        verify(headers.iter().map(|(n, v)| (*n, *v)), b"{}", &key, NOW, 300).map(|v| v.key)
    };
    assert_eq!(judge(vec![("Webhook-Id", b"a"), (TIMESTAMP, b"1787256625"), (SIGNATURE, &signature)]), Ok(0));
    for name in [ID, TIMESTAMP, SIGNATURE] {
        let twice = good.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).unwrap().1;
        let headers =
            vec![(ID, b"a".as_slice()), (TIMESTAMP, b"1787256625"), (SIGNATURE, &signature), (name, twice)];
        assert_eq!(judge(headers), Err(Rejection::DuplicateHeader), "{name}");
    }
    let both =
        vec![(ID, b"a".as_slice()), (TIMESTAMP, b"1787256625"), (SIGNATURE, &signature), (FOREIGN, b"00")];
    assert_eq!(judge(both), Err(Rejection::MixedSchemes));
    assert_eq!(judge(vec![(FOREIGN, b"00".as_slice())]), Err(Rejection::WrongScheme));
}

#[test]
fn many_and_long_signatures() {
    let good = sign(&Key::parse(SECRET).unwrap(), b"a", b"1787256625", b"{}");
    let list = |count: usize| {
        let mut list = b"v1,x ".repeat(count - 1);
        list.extend_from_slice(&good);
        list
    };
    assert_eq!(judge(b"a", b"1787256625", &list(8), b"{}"), Ok(0));
    assert_eq!(judge(b"a", b"1787256625", &list(9), b"{}"), Err(Rejection::TooManySignatures));
    let mut long = vec![b'x'; MAX_LIST];
    long.push(b' ');
    long.extend_from_slice(&good);
    assert_eq!(judge(b"a", b"1787256625", &long, b"{}"), Err(Rejection::Malformed));
}

#[test]
fn any_key_with_any_signature_in_any_order() {
    let texts = [SECRET, "whsec_RSiskZV2N0hvfooFgHFmXMLUi4foU7ACKP+6PNClWGI="];
    let keys = texts.map(|text| Key::parse(text).unwrap());
    let [first, second] = keys.each_ref().map(|key| sign(key, b"a", b"1787256625", b"{}"));
    let other = sign(&Key::dummy().unwrap(), b"a", b"1787256625", b"{}");
    for (list, wanted) in [
        ([&first, &other], Ok(0)),
        ([&other, &first], Ok(0)),
        ([&second, &other], Ok(1)),
        ([&other, &second], Ok(1)),
        ([&second, &first], Ok(0)),
        ([&other, &other], Err(Rejection::NoMatchingSignature)),
    ] {
        let list = [list[0].as_slice(), list[1].as_slice()].join(&b' ');
        let headers = [(ID, b"a".as_slice()), (TIMESTAMP, b"1787256625"), (SIGNATURE, &list)];
        assert_eq!(verify(headers, b"{}", &keys, NOW, 300).map(|verdict| verdict.key), wanted);
    }
    let headers = [(ID, b"a".as_slice()), (TIMESTAMP, b"1787256625"), (SIGNATURE, &first)];
    assert_eq!(verify(headers, b"{}", &[], NOW, 300), Err(Rejection::NoUsableKey));
}

#[test]
fn secrets_as_they_come() {
    // A key is known by what it signs.
    let print = |text: &str| Key::parse(text).map(|key| sign(&key, b"a", b"1", b"{}"));
    let wanted = print("whsec_AAECAwQFBgcICQoLDA0ODw==").unwrap();
    for text in ["AAECAwQFBgcICQoLDA0ODw", "whsec_AAECAwQFBgcICQoLDA0ODw", "whsec_AAECAwQFBgcICQoLDA0ODw==\n"]
    {
        assert_eq!(print(text), Ok(wanted.clone()), "{text:?}");
    }
    for text in ["", "whsec_", "\n", "whsec_=="] {
        assert_eq!(print(text), Err(Rejection::EmptySecret), "{text:?}");
    }
    for text in ["whsec_AAEC AwQ", "whsec_-_", "whsec_AAECAwQFBgcICQoLDA0ODw===", "whsec_A"] {
        assert_eq!(print(text), Err(Rejection::NoUsableKey), "{text:?}");
    }
    assert!(!format!("{:?}", Key::parse(SECRET).unwrap()).contains("8bu"));
}

proptest! {
    #[test]
    fn what_was_signed_verifies(id in "[!-~]{1,128}", skew in -300_i64..=300, body: Vec<u8>) {
        let timestamp = (NOW + skew).to_string();
        let signature = sign(&Key::parse(SECRET).unwrap(), id.as_bytes(), timestamp.as_bytes(), &body);
        prop_assert_eq!(judge(id.as_bytes(), timestamp.as_bytes(), &signature, &body), Ok(0));
    }

    #[test]
    fn any_changed_byte_is_refused(
        id in "[!-~]{1,40}",
        body in proptest::collection::vec(any::<u8>(), 1..200),
        part in 0_usize..4,
        place: prop::sample::Index,
        flip in 1_u8..=255,
    ) {
        let signature = sign(&Key::parse(SECRET).unwrap(), id.as_bytes(), b"1787256625", &body);
        let mut parts = [id.into_bytes(), b"1787256625".to_vec(), signature, body];
        let changed = &mut parts[part];
        let place = place.index(changed.len());
        changed[place] ^= flip;
        // White space at the ends is not part of a header, so a byte may turn into nothing there; it stays refused.
        let [id, timestamp, signature, body] = parts;
        prop_assert!(judge(&id, &timestamp, &signature, &body).is_err());
    }

    #[test]
    fn nothing_panics(id: Vec<u8>, timestamp: Vec<u8>, signature: Vec<u8>, body: Vec<u8>, now: i64) {
        let keys = [Key::parse(SECRET).unwrap()];
        let headers = [(ID, &id[..]), (TIMESTAMP, &timestamp[..]), (SIGNATURE, &signature[..])];
        prop_assert!(verify(headers, &body, &keys, now, 300).is_err());
    }
}
