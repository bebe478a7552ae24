//! Deliveries with public-key signatures, made by hand: by keys of the test's own, which a fault plan puts in the place of
//! the emulator's.

use data_encoding::{BASE64, BASE64URL_NOPAD};
use ed25519_dalek::{Signer, SigningKey};
use gemini_operator::api::GeminiWebhook;
use hmac::{Hmac, KeyInit, Mac};
use ring::rand::SystemRandom;
use ring::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::sender::Sender;
use crate::support::tls::RSA_KEY;

/// Name of the RSA key in the document.
pub const KID: &str = "of-the-test";

/// Somebody who has the private keys.
#[derive(Clone)]
pub struct Forger {
    pub route: Sender,
    pub url: String,
    ed25519: SigningKey,
}

fn rsa() -> RsaKeyPair {
    RsaKeyPair::from_pkcs8(RSA_KEY).expect("the key of the tests is one")
}

/// What everybody can know of the RSA key.
pub fn public_rsa() -> Vec<u8> {
    rsa().public_key().as_ref().to_vec()
}

impl Forger {
    pub fn of(webhook: &GeminiWebhook) -> Self {
        let status = webhook.status.clone().expect("it has a status");
        let path = status.path.expect("it has a path");
        Self {
            route: Sender { path, secret: String::new() },
            url: status.url.expect("it has a URL"),
            ed25519: SigningKey::from_bytes(&[7; 32]),
        }
    }

    /// The document with the public keys.
    pub fn document(&self) -> Value {
        let components = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(rsa().public_key());
        let [n, e] = [&components.n, &components.e].map(|number| BASE64URL_NOPAD.encode(number));
        let x = BASE64URL_NOPAD.encode(self.ed25519.verifying_key().as_bytes());
        json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "x": x},
            {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": KID, "n": n, "e": e},
        ]})
    }

    pub fn public_ed25519(&self) -> Vec<u8> {
        self.ed25519.verifying_key().as_bytes().to_vec()
    }

    /// A delivery with this signature, as it goes over the wire.
    pub fn delivery(&self, signature: &str, id: &str, body: &str) -> Vec<u8> {
        let time = jiff::Timestamp::now().as_second().to_string();
        self.delivery_at(signature, &time, id, body)
    }

    fn delivery_at(&self, signature: &str, time: &str, id: &str, body: &str) -> Vec<u8> {
        let head = self.route.request(&[
            ("webhook-id", id.as_bytes()),
            ("webhook-timestamp", time.as_bytes()),
            ("webhook-signature", signature.as_bytes()),
            ("content-length", body.len().to_string().as_bytes()),
        ]);
        [&head[..], body.as_bytes()].concat()
    }

    /// One with a true Ed25519 signature.
    pub fn v1a(&self, id: &str, body: &str) -> Vec<u8> {
        let time = jiff::Timestamp::now().as_second().to_string();
        let signature = self.ed25519.sign(format!("{id}.{time}.{body}").as_bytes()).to_bytes();
        self.delivery_at(&format!("v1a,{}", BASE64.encode(&signature)), &time, id, body)
    }

    /// One with an HMAC by this key, under a version's name.
    pub fn hmac(&self, version: &str, key: &[u8], id: &str, body: &str) -> Vec<u8> {
        let time = jiff::Timestamp::now().as_second().to_string();
        let tag = hmac(key, &format!("{id}.{time}.{body}"));
        self.delivery_at(&format!("{version},{}", BASE64.encode(&tag)), &time, id, body)
    }

    /// Claims that are in order.
    pub fn claims(&self) -> Value {
        json!({"aud": self.url, "exp": jiff::Timestamp::now().as_second() + 300})
    }
}

/// The first two segments of a token.
fn unsigned(header: &Value, claims: &Value) -> String {
    [header, claims].map(|part| BASE64URL_NOPAD.encode(part.to_string().as_bytes())).join(".")
}

/// A token by the RSA key, under this name.
pub fn rs256(kid: &str, claims: &Value) -> String {
    let signed = unsigned(&json!({"alg": "RS256", "kid": kid}), claims);
    let rsa = rsa();
    let mut signature = vec![0; rsa.public().modulus_len()];
    rsa.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}

/// A token that says of itself that it has no signature.
pub fn alg_none(claims: &Value) -> String {
    format!("{}.", unsigned(&json!({"alg": "none", "kid": KID}), claims))
}

/// A token whose HMAC key is one that everybody has.
pub fn hs256(key: &[u8], claims: &Value) -> String {
    let signed = unsigned(&json!({"alg": "HS256", "kid": KID}), claims);
    let tag = hmac(key, &signed);
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&tag))
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}
