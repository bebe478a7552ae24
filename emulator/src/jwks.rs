//! Keys of dynamic deliveries.
//!
//! Live deliveries were reported to carry `v1a` signatures of three Ed25519 keys without `kid`; the documentation
//! speaks of an RS256 JWT. Both are served; the JWT's key comes from the command line, since ring makes no RSA keys.

use std::sync::{Mutex, PoisonError};

use data_encoding::{BASE64, BASE64URL_NOPAD};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

use crate::clock::{SECOND, real};

/// A JWT is good for so many seconds.
const JWT_LIFE: i64 = 300;

pub struct Keys {
    pairs: Mutex<Vec<Ed25519KeyPair>>,
    jwt: Option<RsaKeyPair>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// Fresh Ed25519 keys, and the RSA key (PKCS#8 or PKCS#1 DER) of the JWT mode where it is wanted.
    pub fn generate(rsa: Option<&[u8]>) -> Result<Self, String> {
        let jwt = match rsa {
            None => None,
            Some(der) => Some(
                RsaKeyPair::from_pkcs8(der)
                    .or_else(|_| RsaKeyPair::from_der(der))
                    .map_err(|error| format!("--jwt-key: {error}"))?,
            ),
        };
        Ok(Self { pairs: Mutex::new(vec![pair()?, pair()?, pair()?]), jwt })
    }

    /// The JWKS document.
    pub fn document(&self) -> Value {
        let pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut keys: Vec<Value> = pairs
            .iter()
            .map(|pair| {
                let x = BASE64URL_NOPAD.encode(pair.public_key().as_ref());
                json!({"kty": "OKP", "crv": "Ed25519", "x": x})
            })
            .collect();
        if let Some(jwt) = &self.jwt {
            let public = PublicKeyComponents::<Vec<u8>>::from(jwt.public());
            keys.push(json!({
                "kty": "RSA",
                "use": "sig",
                "alg": "RS256",
                "kid": key_id(jwt),
                "n": BASE64URL_NOPAD.encode(&public.n),
                "e": BASE64URL_NOPAD.encode(&public.e),
            }));
        }
        json!({ "keys": keys })
    }

    /// The value of `webhook-signature` for a dynamic delivery to `url`.
    pub fn sign(&self, url: &str, content: &[u8]) -> String {
        if let Some(jwt) = &self.jwt {
            return token(jwt, url).unwrap_or_default();
        }
        let pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        pairs
            .last()
            .map_or_else(String::new, |pair| format!("v1a,{}", BASE64.encode(pair.sign(content).as_ref())))
    }

    /// The oldest Ed25519 key goes, a new one comes and signs.
    pub fn rotate(&self) -> Result<(), String> {
        let fresh = pair()?;
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        pairs.remove(0);
        pairs.push(fresh);
        Ok(())
    }
}

fn pair() -> Result<Ed25519KeyPair, String> {
    let document =
        Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| "no randomness".to_owned())?;
    Ed25519KeyPair::from_pkcs8(document.as_ref()).map_err(|error| error.to_string())
}

fn key_id(key: &RsaKeyPair) -> String {
    crate::digest::hex(&crate::digest::sha256(key.public().as_ref())[..8])
}

/// An RS256 JWT whose audience is the endpoint's URL.
fn token(key: &RsaKeyPair, url: &str) -> Option<String> {
    let now = real() / SECOND;
    let part = |value: Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let header = part(json!({"alg": "RS256", "typ": "JWT", "kid": key_id(key)}));
    let claims = part(json!({"aud": url, "iat": now, "exp": now + JWT_LIFE}));
    let signed = format!("{header}.{claims}");
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).ok()?;
    Some(format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature)))
}
