//! Documents of keys: no panic, and no more keys than there may be.
#![no_main]

use gemini_operator::receiver::signature::jwks::{Jwks, MAX_KEYS};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|document: &[u8]| {
    if let Ok(keys) = Jwks::parse(document) {
        let (ed25519, rsa) = keys.counts();
        assert!(ed25519 + rsa <= MAX_KEYS);
        assert_eq!(Jwks::parse(document), Ok(keys));
    }
});
