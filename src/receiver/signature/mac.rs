//! What the schemes with a secret have in common.

use std::fmt;

use hmac::digest::{CtOutput, Output};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::Rejection;

/// A code, to be compared in constant time.
pub(super) type Code = CtOutput<Hmac<Sha256>>;

/// HMAC-SHA256 with the key already in it: its bytes are not kept.
#[derive(Clone)]
pub(super) struct Keyed(Hmac<Sha256>);

impl fmt::Debug for Keyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keyed").finish_non_exhaustive()
    }
}

impl Keyed {
    pub fn new(key: &[u8]) -> Result<Self, Rejection> {
        Hmac::new_from_slice(key).map(Self).map_err(|_| Rejection::NoUsableKey)
    }

    /// The code of a text in parts.
    pub fn code<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> Code {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(part);
        }
        mac.finalize()
    }

    /// A code as it came with a delivery.
    pub fn claimed(bytes: [u8; 32]) -> Code {
        CtOutput::new(Output::<Hmac<Sha256>>::from(bytes))
    }

    /// Whether the other key signs as this one does. The bytes are not kept, but two keys that make the same code of one
    /// text are the same, also where HMAC fills up or shortens them.
    pub fn is(&self, other: &Self) -> bool {
        let code = |key: &Self| key.code([&b"the same key?"[..]]);
        code(self) == code(other)
    }
}
