//! The provider's public keys, out of a JWKS document (RFC 7517).
//!
//! Members that no scheme can use are passed over, for a provider may publish keys for other purposes. A document that
//! is out of bounds as a whole is refused, so that whoever fetches it keeps the keys that it has.

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::VerifyingKey;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// Largest document: sixteen times that of three Ed25519 keys and a few of RSA.
pub const MAX_BYTES: usize = 64 * 1024;
/// Most keys that are of use: each costs a verification for each signature of a delivery.
pub const MAX_KEYS: usize = 20;

/// Size of an RSA key, in bytes of its modulus: 2048 to 8192 bits.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;
/// The same upper bound as in ring: 33 bits, so that nobody can make a verification expensive.
const MAX_EXPONENT: u64 = (1 << 33) - 1;

/// Keys that are good for verifying.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Jwks {
    /// For `v1a`. They come without a `kid`, so each is tried.
    pub(super) ed25519: Vec<VerifyingKey>,
    /// For JWT, picked by `kid`.
    pub(super) rsa: Vec<RsaKey>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct RsaKey {
    pub kid: String,
    /// Big-endian, without leading zeros.
    pub n: Vec<u8>,
    pub e: Vec<u8>,
}

/// Why a document is refused as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("not a JSON object with a list \"keys\"")]
    Malformed,
    #[error("more than {MAX_KEYS} keys that can be used")]
    TooManyKeys,
}

impl Jwks {
    /// Reads a document.
    pub fn parse(document: &[u8]) -> Result<Self, Error> {
        if document.len() > MAX_BYTES {
            return Err(Error::TooLarge);
        }
        let document: Map<String, Value> = serde_json::from_slice(document).map_err(|_| Error::Malformed)?;
        let members = document.get("keys").and_then(Value::as_array).ok_or(Error::Malformed)?;
        let members = || members.iter().filter_map(Value::as_object);
        let keys = Self {
            ed25519: members().filter_map(ed25519).collect(),
            rsa: members().filter_map(rsa).collect(),
        };
        if keys.ed25519.len() + keys.rsa.len() > MAX_KEYS {
            return Err(Error::TooManyKeys);
        }
        Ok(keys)
    }

    /// How many keys there are for `v1a` and for JWT.
    pub fn counts(&self) -> (usize, usize) {
        (self.ed25519.len(), self.rsa.len())
    }

    /// The thumbprints (RFC 7638, SHA-256) of the keys for `v1a` and for JWT: whoever has the document can say which
    /// member is meant, with a `kid` or without.
    pub fn thumbprints(&self) -> (Vec<String>, Vec<String>) {
        let print = |members: String| BASE64URL_NOPAD.encode(&Sha256::digest(members));
        let ed25519 = self.ed25519.iter().map(|key| {
            let x = BASE64URL_NOPAD.encode(key.as_bytes());
            print(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#))
        });
        let rsa = self.rsa.iter().map(|key| {
            let (n, e) = (BASE64URL_NOPAD.encode(&key.n), BASE64URL_NOPAD.encode(&key.e));
            print(format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#))
        });
        (ed25519.collect(), rsa.collect())
    }
}

fn text<'a>(member: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    member.get(name).and_then(Value::as_str)
}

fn bytes(member: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    BASE64URL_NOPAD.decode(text(member, name)?.as_bytes()).ok()
}

/// `kid`, `alg` and `use` say nothing here: live keys have none of them, and the curve has one use in signatures.
fn ed25519(member: &Map<String, Value>) -> Option<VerifyingKey> {
    if (text(member, "kty"), text(member, "crv")) != (Some("OKP"), Some("Ed25519")) {
        return None;
    }
    let bytes: [u8; 32] = bytes(member, "x")?.try_into().ok()?;
    let key = VerifyingKey::from_bytes(&bytes).ok()?;
    // Under a key of small order one signature is good for every text. A point has one canonical form (RFC 8032
    // §5.1.3), which the decoder does not insist on.
    let canonical = key.to_edwards().compress().to_bytes() == bytes;
    (canonical && !key.is_weak()).then_some(key)
}

/// What says that it is for something else than RS256 signatures is left alone.
fn rsa(member: &Map<String, Value>) -> Option<RsaKey> {
    let absent_or = |name: &str, wanted: &str| match member.get(name) {
        None => true,
        Some(value) => value.as_str() == Some(wanted),
    };
    let verifies = match member.get("key_ops") {
        None => true,
        Some(operations) => operations.as_array().is_some_and(|all| all.iter().any(|one| one == "verify")),
    };
    if text(member, "kty") != Some("RSA")
        || !absent_or("alg", "RS256")
        || !absent_or("use", "sig")
        || !verifies
    {
        return None;
    }
    let kid = text(member, "kid").filter(|kid| !kid.is_empty())?.to_owned();
    let (n, e) = (bytes(member, "n")?, bytes(member, "e")?);
    let odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
    let modulus = MODULUS.contains(&n.len()) && odd(&n);
    // The shortest modulus has its highest bit set; a longer one no leading zeros.
    let full =
        n.first().is_some_and(|first| if n.len() == *MODULUS.start() { *first >= 0x80 } else { *first > 0 });
    let exponent =
        e.iter().try_fold(0_u64, |sum, byte| sum.checked_mul(256)?.checked_add(u64::from(*byte)))?;
    let small = (3..=MAX_EXPONENT).contains(&exponent) && odd(&e) && e.first() != Some(&0);
    (modulus && full && small).then_some(RsaKey { kid, n, e })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Keys 0 and 1 of the vectors.
    const X: [&str; 2] =
        ["m2mvf3CO4ywfLu836MSqHhhK4jZxlmEahLdGHsjT2-0", "qvbLRq_PM5Qci7ACb6dzPxFQ-A2cC4nVdpU7Wc6ZtW0"];

    fn counts(members: &Value) -> Result<(usize, usize), Error> {
        Jwks::parse(json!({ "keys": members }).to_string().as_bytes()).map(|keys| keys.counts())
    }

    fn encoded(number: &[u8]) -> String {
        BASE64URL_NOPAD.encode(number)
    }

    /// A number of so many bytes, with these as the first and the last.
    fn modulus(length: usize, first: u8, last: u8) -> String {
        let mut number = vec![0x55; length];
        (number[0], number[length - 1]) = (first, last);
        encoded(&number)
    }

    #[test]
    fn documents() {
        for (document, wanted) in [
            (r#"{"keys":[]}"#, Ok((0, 0))),
            (r#" {"keys":["text",7,null,[]],"more":1} "#, Ok((0, 0))),
            (r#"{"keys":{}}"#, Err(Error::Malformed)),
            ("{}", Err(Error::Malformed)),
            ("[]", Err(Error::Malformed)),
            ("", Err(Error::Malformed)),
            ("<html>", Err(Error::Malformed)),
        ] {
            assert_eq!(Jwks::parse(document.as_bytes()).map(|keys| keys.counts()), wanted, "{document}");
        }
        assert_eq!(Jwks::parse(b"\xff"), Err(Error::Malformed));
        let deep = format!(r#"{{"keys":{}{}}}"#, "[".repeat(30_000), "]".repeat(30_000));
        assert_eq!(Jwks::parse(deep.as_bytes()), Err(Error::Malformed));
    }

    /// The examples of RFC 7638 §3.1 and RFC 8037 §A.3.
    #[test]
    fn thumbprints() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3o\
                 knjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgd\
                 AZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-cs\
                 FCur-kEgU8awapJzKnqDKgw";
        let members = json!([
            {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
            {"kty": "RSA", "kid": "2011-04-29", "alg": "RS256", "n": n, "e": "AQAB"},
        ]);
        let keys = Jwks::parse(json!({ "keys": members }).to_string().as_bytes()).unwrap();
        let (ed25519, rsa) = keys.thumbprints();
        assert_eq!(ed25519, ["kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"]);
        assert_eq!(rsa, ["NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"]);
    }

    #[test]
    fn bounds() {
        let of = |size: usize| format!(r#"{{"keys":[],"a":"{}"}}"#, "a".repeat(size - 18));
        assert_eq!(of(MAX_BYTES).len(), MAX_BYTES);
        assert!(Jwks::parse(of(MAX_BYTES).as_bytes()).is_ok());
        assert_eq!(Jwks::parse(of(MAX_BYTES + 1).as_bytes()), Err(Error::TooLarge));

        let good = json!({"kty": "OKP", "crv": "Ed25519", "x": X[0]});
        let other = json!({"kty": "EC", "crv": "P-256", "x": X[0], "y": X[1]});
        let mut members = vec![good.clone(); MAX_KEYS];
        members.extend(vec![other; 50]);
        assert_eq!(counts(&json!(members)), Ok((MAX_KEYS, 0)), "keys of others do not count");
        members.push(good);
        assert_eq!(counts(&json!(members)), Err(Error::TooManyKeys));
    }

    #[test]
    fn ed25519_members() {
        for (member, usable) in [
            (json!({"kty": "OKP", "crv": "Ed25519", "x": X[0]}), 1),
            (json!({"kty": "OKP", "crv": "Ed25519", "x": X[1], "kid": 7, "alg": "RS256", "use": "enc"}), 1),
            (json!({"kty": "OKP", "crv": "X25519", "x": X[0]}), 0),
            (json!({"kty": "okp", "crv": "Ed25519", "x": X[0]}), 0),
            (json!({"crv": "Ed25519", "x": X[0]}), 0),
            (json!({"kty": "OKP", "crv": "Ed25519"}), 0),
            (json!({"kty": "OKP", "crv": "Ed25519", "x": 7}), 0),
            (json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}), 0),
            (json!({"kty": "OKP", "crv": "Ed25519", "x": format!("{}=", X[0])}), 0),
            (json!({"kty": "OKP", "crv": "Ed25519", "x": X[0].replace('-', "+")}), 0),
            // Bits after the end.
            (json!({"kty": "OKP", "crv": "Ed25519", "x": X[0].replace("2-0", "2-1")}), 0),
            // No point of the curve.
            (json!({"kty": "OKP", "crv": "Ed25519", "x": encoded(&[2; 32])}), 0),
        ] {
            assert_eq!(counts(&json!([member])), Ok((usable, 0)), "{member}");
        }
    }

    /// All points of small order, the canonical forms and the others.
    #[test]
    fn keys_of_small_order() {
        let order8 = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a";
        let order8 = data_encoding::HEXLOWER.decode(order8.as_bytes()).unwrap();
        let negative = |point: &[u8]| {
            let mut point = point.to_vec();
            point[31] ^= 0x80;
            point
        };
        let small = |first: u8, rest: u8, last: u8| {
            let mut point = vec![rest; 32];
            (point[0], point[31]) = (first, last);
            point
        };
        let order8_twin = data_encoding::HEXLOWER
            .decode(b"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
            .unwrap();
        let points = [
            small(0, 0, 0),
            small(1, 0, 0),
            // -1, 0 and 1 as numbers of the field, also in the forms with p added.
            small(0xec, 0xff, 0x7f),
            small(0xed, 0xff, 0x7f),
            small(0xee, 0xff, 0x7f),
            order8,
            order8_twin,
        ];
        for point in points.iter().flat_map(|point| [point.clone(), negative(point)]) {
            let member = json!({"kty": "OKP", "crv": "Ed25519", "x": encoded(&point)});
            assert_eq!(counts(&json!([member])), Ok((0, 0)), "{member}");
        }
    }

    #[test]
    fn rsa_members() {
        let good = json!({"kty": "RSA", "kid": "a", "n": modulus(256, 0x80, 1), "e": "AQAB"});
        let with = |name: &str, value: Value| {
            let mut member = good.clone();
            member[name] = value;
            member
        };
        for (member, usable) in [
            (good.clone(), 1),
            (with("alg", json!("RS256")), 1),
            (with("use", json!("sig")), 1),
            (with("key_ops", json!(["verify"])), 1),
            (with("n", json!(modulus(257, 1, 1))), 1),
            (with("n", json!(modulus(1024, 0xff, 0xff))), 1),
            (with("e", json!(encoded(&[3]))), 1),
            (with("e", json!(encoded(&[1, 255, 255, 255, 255]))), 1),
            (with("alg", json!("RS512")), 0),
            (with("alg", json!(null)), 0),
            (with("use", json!("enc")), 0),
            (with("key_ops", json!(["encrypt"])), 0),
            (with("key_ops", json!("verify")), 0),
            (with("kty", json!("oct")), 0),
            (with("kid", json!("")), 0),
            (with("kid", json!(1)), 0),
            (with("n", json!(modulus(256, 0x7f, 1))), 0),
            (with("n", json!(modulus(255, 0xff, 1))), 0),
            (with("n", json!(modulus(257, 0, 1))), 0),
            (with("n", json!(modulus(1025, 1, 1))), 0),
            (with("n", json!(modulus(256, 0x80, 2))), 0),
            (with("n", json!("")), 0),
            (with("e", json!("")), 0),
            (with("e", json!(encoded(&[1]))), 0),
            (with("e", json!(encoded(&[4]))), 0),
            (with("e", json!(encoded(&[0, 3]))), 0),
            (with("e", json!(encoded(&[2, 0, 0, 0, 1]))), 0),
            (with("e", json!(encoded(&[0xff; 64]))), 0),
        ] {
            assert_eq!(counts(&json!([member])), Ok((0, usable)), "{member}");
        }
    }
}
