//! Keys of dynamic deliveries: three Ed25519 keys without `kid`, as live deliveries were reported to be signed.

use std::sync::{Mutex, PoisonError};

use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

#[derive(Debug)]
pub struct Keys {
    pairs: Mutex<Vec<Ed25519KeyPair>>,
}

impl Keys {
    pub fn generate() -> Result<Self, String> {
        Ok(Self { pairs: Mutex::new(vec![pair()?, pair()?, pair()?]) })
    }

    /// The JWKS document.
    pub fn document(&self) -> Value {
        let pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<Value> = pairs
            .iter()
            .map(|pair| {
                let x = data_encoding::BASE64URL_NOPAD.encode(pair.public_key().as_ref());
                json!({"kty": "OKP", "crv": "Ed25519", "x": x})
            })
            .collect();
        json!({ "keys": keys })
    }

    /// `v1a,<base64>` with the newest key.
    pub fn sign(&self, content: &[u8]) -> String {
        let pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        pairs.last().map_or_else(String::new, |pair| {
            format!("v1a,{}", data_encoding::BASE64.encode(pair.sign(content).as_ref()))
        })
    }

    /// The oldest key goes, a new one comes.
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
