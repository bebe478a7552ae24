//! The rules beyond the vectors.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::super::headers::X_GOOG_SIGNATURE;
use super::*;

const SECRET: &[u8] = b"article-shared-secret-0123456789";

fn sign(secret: &[u8], body: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    HEXLOWER.encode(&mac.chain_update(body).finalize().into_bytes())
}

fn judge(signature: &[u8], body: &[u8]) -> Result<usize, Rejection> {
    let keys = [Key::parse(SECRET, &[]).unwrap(), Key::parse(&[b'x'; 40], &[]).unwrap()];
    verify([(X_GOOG_SIGNATURE, signature)], body, &keys)
}

#[test]
fn any_key_and_any_body() {
    for body in [&b""[..], b"{}", b"\xff\x00", &vec![b'a'; 100_000]] {
        assert_eq!(judge(sign(SECRET, body).as_bytes(), body), Ok(0));
        assert_eq!(judge(sign(&[b'x'; 40], body).as_bytes(), body), Ok(1));
        assert_eq!(judge(sign(b"another", body).as_bytes(), body), Err(Rejection::NoMatchingSignature));
    }
    let header = [("X-Goog-Signature", sign(SECRET, b"").into_bytes())];
    let headers = || header.iter().map(|(name, value)| (*name, value.as_slice()));
    assert_eq!(verify(headers(), b"", &[]), Err(Rejection::NoUsableKey));
}

#[test]
fn one_form_of_the_signature() {
    let good = sign(SECRET, b"{}");
    assert_eq!(judge(format!(" {good}\t").as_bytes(), b"{}"), Ok(0));
    for text in [
        good.to_uppercase(),
        format!("sha256={good}"),
        format!("{good} {good}"),
        format!("{good},{good}"),
        good[..63].to_owned(),
        good[..62].to_owned(),
        format!("{good}0"),
        format!("{good}00"),
        format!("{}\u{e9}", &good[..62]),
        "x".repeat(64),
    ] {
        assert_eq!(judge(text.as_bytes(), b"{}"), Err(Rejection::Malformed), "{text}");
    }
    assert_eq!(judge(&[0xff; 64], b"{}"), Err(Rejection::Malformed));
    assert_eq!(judge(b" ", b"{}"), Err(Rejection::MissingHeader));
}

#[test]
fn secrets_as_they_come() {
    let parse = |secret: &[u8]| Key::parse(secret, &[]).map(drop);
    assert_eq!(parse(&[0xff; 32]), Ok(()));
    for secret in [&b""[..], b"\n", b"\r\n"] {
        assert_eq!(parse(secret), Err(Rejection::EmptySecret));
    }
    assert_eq!(parse(&[b'a'; 31]), Err(Rejection::NoUsableKey));
    assert_eq!(parse(&[&[b'a'; 31][..], b"\r\n"].concat()), Err(Rejection::NoUsableKey));
    assert_eq!(parse(b"whsec_8bu+XSSczpNiAB71OJD7oFB40AVGsKu5"), Err(Rejection::KeyReused));
    // With and without the newline of its file it is one key.
    let keys = [Key::parse(&[SECRET, b"\n"].concat(), &[]).unwrap()];
    let signature = sign(SECRET, b"{}");
    assert_eq!(verify([(X_GOOG_SIGNATURE, signature.as_bytes())], b"{}", &keys), Ok(0));
    assert!(!format!("{:?}", keys[0]).contains("article"));
}

#[test]
fn keys_of_other_webhooks() {
    let bytes = [7_u8; 40];
    let others = |bytes: &[u8]| [standard_v1::Key::parse(&data_encoding::BASE64.encode(bytes)).unwrap()];
    assert_eq!(Key::parse(&bytes, &others(&bytes)).map(drop), Err(Rejection::KeyReused));
    assert_eq!(Key::parse(&bytes[..24], &others(&bytes[..24])).map(drop), Err(Rejection::KeyReused));
    assert_eq!(Key::parse(&bytes, &others(&bytes[1..])).map(drop), Ok(()));
    // HMAC fills a short key up with zeros.
    let filled = [&bytes[..], &[0; 4]].concat();
    assert_eq!(Key::parse(&filled, &others(&bytes)).map(drop), Err(Rejection::KeyReused));
}
