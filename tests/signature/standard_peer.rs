//! Our verifier and the `standardwebhooks` crate judge the same deliveries. Where they differ, the reason is in a list.

use std::cell::Cell;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use gemini_operator::receiver::signature::standard_v1::Key;
use gemini_operator::receiver::signature::{Scheme, verify};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use standardwebhooks::Webhook;

use crate::deliveries::{
    Delivery, Difference, Only, SECRET, assert_example, compare, deliveries, delivery, now, ours, sign,
};

fn theirs(delivery: &Delivery) -> bool {
    let Ok(webhook) = Webhook::new(&delivery.secret) else { return false };
    let mut headers = HeaderMap::new();
    for (name, value) in &delivery.headers {
        headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap());
    }
    webhook.verify(&delivery.body, &headers).is_ok()
}

/// Everything that the two may differ in, and why we do what we do.
const DIFFERENCES: [Difference; 11] = [
    ("a body is bytes: one that is not UTF-8 is authentic all the same", Only::Ours, |d| {
        str::from_utf8(&d.body).is_err()
    }),
    ("a secret may lack its padding, or end in the newline of its file", Only::Ours, |d| {
        Webhook::new(&d.secret).is_err()
    }),
    ("white space round a header's value is not part of it", Only::Ours, |d| {
        d.any_value(|value| value != value.trim_ascii())
    }),
    ("an entry that is no text is skipped, as every other one that is not ours", Only::Ours, |d| {
        !d.value("webhook-signature").is_ascii()
    }),
    ("a number has one text: the text is what is signed, so it is not rendered anew", Only::Theirs, |d| {
        matches!(d.value("webhook-timestamp"), [b'+', ..] | [b'0', _, ..])
    }),
    ("an id is 1 to 128 visible characters, for it is stored", Only::Theirs, |d| {
        let id = d.value("webhook-id");
        id.is_empty() || id.len() > 128 || !id.iter().all(u8::is_ascii_graphic)
    }),
    ("each signature costs work, so there are at most eight", Only::Theirs, |d| {
        d.entries().filter(|entry| !entry.is_empty()).count() > 8
    }),
    ("and at most 4096 bytes of them", Only::Theirs, |d| d.value("webhook-signature").len() > 4096),
    ("of a header that is there twice nobody knows which one is meant", Only::Theirs, |d| d.repeats_itself()),
    ("a request speaks one scheme", Only::Theirs, |d| {
        d.headers.iter().any(|(name, _)| *name == "x-goog-signature")
    }),
    ("the empty key is everybody's", Only::Theirs, |d| d.secret.trim_start_matches("whsec_").is_empty()),
];

/// One example for each difference: a list that holds more than there is would hide something.
#[test]
fn each_difference_is_one() {
    let time = now();
    let good = delivery("msg_1", time, b"{}");
    assert!(ours(&good) && theirs(&good));
    let signature = good.value("webhook-signature");
    // Signed by ourselves: the other one does not sign such a body. A vector, at its own time.
    let vectors = crate::vectors::all();
    let binary = vectors.iter().find(|vector| vector.name.ends_with("body_not_utf8")).unwrap();
    let headers = binary.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let keys = [Key::parse(str::from_utf8(&binary.secrets[0]).unwrap()).unwrap()];
    assert!(verify(Scheme::StandardWebhooks(&keys), headers, &binary.body, binary.now, 300).is_ok());
    assert!(Webhook::new(SECRET).unwrap().sign("a", time, &binary.body).is_err());

    let empty = Delivery {
        secret: "whsec_".into(),
        ..good.with("webhook-signature", sign("whsec_", "msg_1", time, b"{}"))
    };
    let examples = [
        None,
        Some(Delivery { secret: format!("{SECRET}\n"), ..good.clone() }),
        Some(good.with("webhook-timestamp", format!(" {time}"))),
        Some(good.with("webhook-signature", [b"\xff ", signature].concat())),
        Some(good.with("webhook-timestamp", format!("+{time}"))),
        Some(delivery("msg 1", time, b"{}")),
        Some(good.with("webhook-signature", [&b"v1,x ".repeat(8), signature].concat())),
        Some(good.with("webhook-signature", [&[b'x'; 4096][..], b" ", signature].concat())),
        Some(good.and("webhook-id", "msg_2")),
        Some(good.and("x-goog-signature", "00")),
        Some(empty),
    ];
    for (difference, example) in DIFFERENCES.iter().zip(examples) {
        let Some(example) = example else { continue };
        assert_example(&example, theirs(&example), difference, &DIFFERENCES);
    }
    for id in ["", &"a".repeat(129)] {
        let example = delivery(id, time, b"{}");
        assert_eq!((ours(&example), theirs(&example)), (false, true), "{id:?}");
    }
}

#[test]
fn both_judge_alike_but_for_the_list() {
    let (accepted, refused) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(Config { cases: 4000, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&deliveries(), |delivery| {
        let both = compare(&delivery, theirs(&delivery), &DIFFERENCES).map_err(TestCaseError::fail)?;
        let counter = if both { &accepted } else { &refused };
        counter.set(counter.get() + 1);
        Ok(())
    });
    outcome.unwrap();
    // Otherwise they would agree by refusing everything.
    assert!(accepted.get() > 200 && refused.get() > 200, "{accepted:?} {refused:?}");
}
