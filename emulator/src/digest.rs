//! Digests in the forms that the wire uses, and everything that must be the same for the same seed.

use ring::digest::{Context, SHA256, digest};

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    sized(digest(&SHA256, bytes))
}

pub fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// The files' `sha256Hash`: base64 of the hexadecimal text.
pub fn file_hash(bytes: &[u8]) -> String {
    data_encoding::BASE64.encode(hex(&sha256(bytes)).as_bytes())
}

/// A number in 0..1 that depends on the seed and the words only.
pub fn unit(seed: u64, words: &[&str]) -> f64 {
    let bits = u32::from_be_bytes(first4(&seeded(seed, words)));
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

/// `length` lowercase letters and digits that depend on the seed and the words only.
pub fn word(seed: u64, words: &[&str], length: usize) -> String {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut out = String::with_capacity(length);
    let mut block = seeded(seed, words);
    loop {
        for byte in block {
            if out.len() == length {
                return out;
            }
            // The first character is a letter: names must not begin with a digit everywhere.
            let range = if out.is_empty() { 26 } else { ALPHABET.len() };
            out.push(char::from(ALPHABET[usize::from(byte) % range]));
        }
        block = sha256(&block);
    }
}

fn seeded(seed: u64, words: &[&str]) -> [u8; 32] {
    let mut hasher = Context::new(&SHA256);
    hasher.update(&seed.to_be_bytes());
    for word in words {
        hasher.update(&word.len().to_be_bytes());
        hasher.update(word.as_bytes());
    }
    sized(hasher.finish())
}

fn first4(bytes: &[u8; 32]) -> [u8; 4] {
    [bytes[0], bytes[1], bytes[2], bytes[3]]
}

/// Of ring's digest, which does not say its length in its type.
fn sized(digest: impl AsRef<[u8]>) -> [u8; 32] {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    out
}
