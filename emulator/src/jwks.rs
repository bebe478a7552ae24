//! Keys of dynamic deliveries.
//!
//! Live deliveries were reported to carry `v1a` signatures of three Ed25519 keys without `kid`; the documentation
//! speaks of an RS256 JWT. Both are served; the JWT's keys come from the command line, since ring makes no RSA keys.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use data_encoding::{BASE64, BASE64URL_NOPAD};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::{SECOND, real};
use crate::faults::Plan;

/// A JWT is good for so many seconds.
const JWT_LIFE: i64 = 300;

/// What deliveries to a job's own addresses are signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Signature {
    /// Ed25519, as live deliveries were reported.
    V1a,
    /// RS256 JWT, as documented.
    Jwt,
}

pub struct Keys {
    usual: Signature,
    rings: Mutex<Rings>,
}

struct Rings {
    ed25519: Ring<Ed25519KeyPair>,
    rsa: Ring<RsaKeyPair>,
    /// RSA keys whose turn has not come.
    spare: VecDeque<RsaKeyPair>,
}

/// Keys of one kind.
struct Ring<K> {
    /// Those of the document, the oldest first; the newest signs.
    live: VecDeque<K>,
    /// The one that left the document last.
    retired: Option<K>,
}

impl<K> Ring<K> {
    /// The oldest key goes, this one comes.
    fn turn(&mut self, fresh: K) {
        self.live.push_back(fresh);
        self.retired = self.live.pop_front();
    }

    fn signer(&self, retired: bool) -> Option<&K> {
        if retired { self.retired.as_ref() } else { self.live.back() }
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// Fresh Ed25519 keys, and these RSA keys: the first is in the document, the others come one by one with rotations.
    pub fn new(usual: Signature, rsa: Vec<RsaKeyPair>) -> Result<Self, String> {
        let mut names: Vec<String> = rsa.iter().map(key_id).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("--jwt-key: a key is given twice, and a rotation would change nothing".into());
        }
        let mut spare = VecDeque::from(rsa);
        let rings = Rings {
            ed25519: Ring { live: [pair()?, pair()?, pair()?].into(), retired: None },
            rsa: Ring { live: spare.pop_front().into_iter().collect(), retired: None },
            spare,
        };
        Ok(Self { usual, rings: Mutex::new(rings) })
    }

    /// A plan may ask for signatures only that there is a key for.
    pub fn check(&self, plan: &Plan) -> Result<(), String> {
        let asks = plan.deliveries.iter().position(|rule| rule.action.dynamic == Some(Signature::Jwt));
        match asks {
            Some(position) if self.rings().rsa.live.is_empty() => {
                Err(format!("fault plan: deliveries[{position}]: dynamic: jwt needs a key by --jwt-key"))
            }
            _ => Ok(()),
        }
    }

    /// The JWKS document.
    pub fn document(&self) -> Value {
        let rings = self.rings();
        let ed25519 = rings.ed25519.live.iter().map(|pair| {
            let x = BASE64URL_NOPAD.encode(pair.public_key().as_ref());
            json!({"kty": "OKP", "crv": "Ed25519", "x": x})
        });
        let rsa = rings.rsa.live.iter().map(|key| {
            let public = PublicKeyComponents::<Vec<u8>>::from(key.public());
            json!({
                "kty": "RSA",
                "use": "sig",
                "alg": "RS256",
                "kid": key_id(key),
                "n": BASE64URL_NOPAD.encode(&public.n),
                "e": BASE64URL_NOPAD.encode(&public.e),
            })
        });
        let keys: Vec<Value> = ed25519.chain(rsa).collect();
        json!({ "keys": keys })
    }

    /// The value of `webhook-signature` for a dynamic delivery to `url`: as usual or as it is asked for, by the newest
    /// key or by the one that left the document last. None where there is no such key.
    pub fn sign(&self, asked: Option<Signature>, retired: bool, url: &str, content: &[u8]) -> Option<String> {
        let rings = self.rings();
        match asked.unwrap_or(self.usual) {
            Signature::Jwt => token(rings.rsa.signer(retired)?, url),
            Signature::V1a => {
                let signature = rings.ed25519.signer(retired)?.sign(content);
                Some(format!("v1a,{}", BASE64.encode(signature.as_ref())))
            }
        }
    }

    /// The oldest key of the usual kind, or of the one that is asked for, goes; a new one comes and signs.
    pub fn rotate(&self, asked: Option<Signature>) -> Result<(), String> {
        let mut rings = self.rings();
        match asked.unwrap_or(self.usual) {
            Signature::V1a => rings.ed25519.turn(pair()?),
            Signature::Jwt => {
                let fresh = rings.spare.pop_front();
                rings.rsa.turn(fresh.ok_or(
                    "there is no further key for a JWT: --jwt-key gives the first, and another for each rotation",
                )?);
            }
        }
        Ok(())
    }

    fn rings(&self) -> MutexGuard<'_, Rings> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An RSA key out of PKCS#8 or PKCS#1 DER.
pub fn rsa_key(der: &[u8]) -> Result<RsaKeyPair, String> {
    RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der)).map_err(|error| error.to_string())
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
