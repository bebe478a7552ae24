//! Deliveries of all schemes that were good or bad once, edited: whatever is accepted says what was signed.
#![no_main]

use std::sync::LazyLock;

use gemini_operator::receiver::signature::dynamic_jwt::Expected;
use gemini_operator::receiver::signature::jwks::Jwks;
use gemini_operator::receiver::signature::{Scheme, standard_v1, verify, x_goog};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[allow(dead_code)] // The verdicts: here it is enough that nothing else is accepted.
#[path = "../../src/receiver/signature/vectors.rs"]
mod vectors;
use vectors::Vector;

#[derive(Arbitrary, Debug)]
struct Input {
    vector: u8,
    /// Whether the keys are those of another vector, and so perhaps of another scheme.
    keys_of: Option<u8>,
    edits: Vec<Edit>,
    now: Option<i64>,
    tolerance: Option<i64>,
}

#[derive(Arbitrary, Debug)]
struct Edit {
    /// A header, or the body.
    part: u8,
    place: u16,
    change: Change,
}

#[derive(Arbitrary, Debug)]
enum Change {
    Flip(u8),
    Cut,
    Insert(Vec<u8>),
    /// The same header once more.
    Again,
    Rename(String),
}

static VECTORS: LazyLock<Vec<Vector>> = LazyLock::new(vectors::all);

type Headers = Vec<(String, Vec<u8>)>;

fuzz_target!(|input: Input| {
    let vector = &VECTORS[usize::from(input.vector) % VECTORS.len()];
    let keys = input.keys_of.map_or(vector, |number| &VECTORS[usize::from(number) % VECTORS.len()]);
    let bytes = |(name, value): &(String, String)| (name.clone(), value.clone().into_bytes());
    let mut headers: Headers = vector.headers.iter().map(bytes).collect();
    let mut body = vector.body.clone();
    for edit in input.edits {
        apply(edit, &mut headers, &mut body);
    }
    let (now, tolerance) = (input.now.unwrap_or(keys.now), input.tolerance.unwrap_or(keys.tolerance));
    if let Some(signed) = judge(keys, &headers, &body, now, tolerance) {
        // Nobody here can sign, so it is one that was signed: by these keys, and not otherwise.
        let known = VECTORS.iter().filter(|known| known.scheme == keys.scheme).any(|known| {
            let headers: Headers = known.headers.iter().map(bytes).collect();
            signed == said(&keys.scheme, &headers, &known.body)
        });
        assert!(known, "{} accepted what nobody signed: {headers:?}", keys.scheme);
    }
});

fn apply(edit: Edit, headers: &mut Headers, body: &mut Vec<u8>) {
    let part = usize::from(edit.part) % (headers.len() + 1);
    let text = match headers.get_mut(part) {
        Some((_, value)) => value,
        None => &mut *body,
    };
    let place = usize::from(edit.place) % (text.len() + 1);
    match edit.change {
        Change::Flip(bits) => {
            if let Some(byte) = text.get_mut(place) {
                *byte ^= bits;
            }
        }
        Change::Cut => text.truncate(place),
        Change::Insert(bytes) => {
            text.splice(place..place, bytes);
        }
        Change::Again => {
            if let Some(header) = headers.get(part).cloned() {
                headers.push(header);
            }
        }
        Change::Rename(to) => {
            if let Some((name, _)) = headers.get_mut(part) {
                *name = to;
            }
        }
    }
}

/// Judges by the keys of a vector; what was accepted, in the words of its scheme.
fn judge(keys: &Vector, headers: &Headers, body: &[u8], now: i64, tolerance: i64) -> Option<Vec<Vec<u8>>> {
    let iterator = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
    let judge = |scheme: Scheme<'_>| verify(scheme, iterator, body, now, tolerance).is_ok();
    let accepted = match keys.scheme.as_str() {
        "StandardWebhooks" => {
            let parse = |text: &Vec<u8>| standard_v1::Key::parse(str::from_utf8(text).unwrap()).ok();
            judge(Scheme::StandardWebhooks(&keys.secrets.iter().filter_map(parse).collect::<Vec<_>>()))
        }
        "XGoogSignature" => {
            let parse = |text: &Vec<u8>| x_goog::Key::parse(text, &[]).ok();
            judge(Scheme::XGoogSignature(&keys.secrets.iter().filter_map(parse).collect::<Vec<_>>()))
        }
        "DynamicV1a" => judge(Scheme::DynamicV1a(&Jwks::parse(&keys.jwks).unwrap())),
        _ => {
            let expected = Expected { audience: keys.audience.clone(), issuer: None };
            judge(Scheme::DynamicJwt(&Jwks::parse(&keys.jwks).unwrap(), &expected))
        }
    };
    accepted.then(|| said(&keys.scheme, headers, body))
}

/// What a signature of this scheme speaks of.
fn said(scheme: &str, headers: &Headers, body: &[u8]) -> Vec<Vec<u8>> {
    let value = |wanted: &str| {
        let header = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        header.map(|(_, value)| value.trim_ascii().to_vec()).unwrap_or_default()
    };
    match scheme {
        "StandardWebhooks" | "DynamicV1a" => {
            vec![value("webhook-id"), value("webhook-timestamp"), body.to_vec()]
        }
        "XGoogSignature" => vec![body.to_vec()],
        // The event of the body is compared as it reads, not as it is spelt.
        _ => {
            let body = serde_json::from_slice::<serde_json::Value>(body).map(|event| event.to_string());
            vec![value("webhook-signature"), body.unwrap_or_default().into_bytes()]
        }
    }
}
