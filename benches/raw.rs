//! The verdict alone, without a network, beside the one HMAC that it cannot do without.

use std::hint::black_box;
use std::time::Duration;

use gemini_operator::receiver::signature::standard_v1::Key;
use gemini_operator::receiver::signature::{Scheme, verify};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::load::cpu_of;
use crate::{Line, Size, Wanted, median, progress, world};

const ID: &str = "msg_2kZpTq8vXc4YdLrWn7BsHf3JgMa";
const NOW: i64 = 1_787_256_625;

/// As long as what Gemini sends.
const BODY: &str = r#"{"type":"batch.succeeded","version":"v1","timestamp":"2026-08-20T20:10:25.123456Z","data":{"id":"batches/q3t8xk2m5w9r1v7z4b6n","output_file_uri":"files/batch-q3t8xk2m5w9r1v7z4b6n"}}"#;

/// CPU time of one of many; nothing else of this program works meanwhile.
fn timed(times: u32, mut once: impl FnMut()) -> Duration {
    let begin = cpu_of(std::process::id());
    for _ in 0..times {
        once();
    }
    cpu_of(std::process::id()).saturating_sub(begin) / times
}

pub fn lines(size: &Size) -> Vec<Line> {
    progress("P2: the verdict alone");
    let mac = Hmac::<Sha256>::new_from_slice(world::KEY).expect("any length will do");
    let timestamp = NOW.to_string();
    let parts = [ID.as_bytes(), b".", timestamp.as_bytes(), b".", BODY.as_bytes()];
    let tag = mac.clone().chain_update(parts.concat()).finalize().into_bytes();
    let signature = format!("v1,{}", data_encoding::BASE64.encode(&tag));
    let length = BODY.len().to_string();
    // As an Ingress passes it on.
    let headers = [
        ("host", "hooks.test"),
        ("user-agent", "Google-Gemini-Webhooks"),
        ("content-length", length.as_str()),
        ("content-type", "application/json"),
        ("webhook-id", ID),
        ("webhook-signature", signature.as_str()),
        ("webhook-timestamp", timestamp.as_str()),
        ("accept-encoding", "gzip"),
        ("x-forwarded-for", "10.1.2.3"),
        ("x-forwarded-host", "hooks.test"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", "10.1.2.3"),
    ];
    let keys = [Key::parse(world::SECRET).expect("the secret is one")];

    // As a call for one HMAC does it: key and text go in, the tag comes out.
    let whole = || {
        let mut mac = Hmac::<Sha256>::new_from_slice(black_box(world::KEY)).expect("any length will do");
        for part in black_box(parts) {
            mac.update(part);
        }
        assert!(mac.verify_slice(black_box(&tag)).is_ok(), "the signature is right");
    };
    // With the key already in it, as our own has it.
    let keyed = || {
        let mut mac = mac.clone();
        for part in black_box(parts) {
            mac.update(part);
        }
        assert!(mac.verify_slice(black_box(&tag)).is_ok(), "the signature is right");
    };
    let ours = || {
        let headers = black_box(&headers).iter().map(|(name, value)| (*name, value.as_bytes()));
        let verdict = verify(Scheme::StandardWebhooks(&keys), headers, black_box(BODY.as_bytes()), NOW, 300);
        assert!(verdict.is_ok(), "the signature is right");
    };
    // Caches and clocks of the processor.
    timed(size.verifications / 10, keyed);
    timed(size.verifications / 10, ours);
    let rounds: Vec<_> = (0..size.rounds.max(5))
        .map(|_| {
            let times = size.verifications;
            [timed(times, ours), timed(times, whole), timed(times, keyed)]
                .map(|time| time.as_secs_f64() * 1e9)
        })
        .collect();
    let line = |what: &str, peer: usize| Line {
        bar: "P2",
        what: what.into(),
        value: median(rounds.iter().map(|times| times[0] / times[peer]).collect()),
        wanted: Wanted::AtMost(1.2),
        figures: format!("{:.0} and {:.0} ns", rounds[0][0], rounds[0][peer]),
    };
    vec![
        line("a verdict, of the raw HMAC", 1),
        line("a verdict, of the raw HMAC with its key already in it", 2),
    ]
}
