//! Our verifier and the `standardwebhooks` crate judge the same deliveries. Where they differ, the reason is in a list.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use gemini_operator::receiver::signature::standard_v1::Key;
use gemini_operator::receiver::signature::{Scheme, verify};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use standardwebhooks::Webhook;

const SECRET: &str = "whsec_8bu+XSSczpNiAB71OJD7oFB40AVGsKu5";
const OTHER: &str = "whsec_RSiskZV2N0hvfooFgHFmXMLUi4foU7ACKP+6PNClWGI=";

/// A delivery to a receiver with one secret.
#[derive(Clone, Debug)]
struct Delivery {
    secret: String,
    headers: Vec<(&'static str, Vec<u8>)>,
    body: Vec<u8>,
}

/// The other verifier asks the machine's clock, so ours is told that one.
fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn ours(delivery: &Delivery) -> bool {
    let Ok(key) = Key::parse(&delivery.secret) else { return false };
    let headers = delivery.headers.iter().map(|(name, value)| (*name, value.as_slice()));
    verify(Scheme::StandardWebhooks(&[key]), headers, &delivery.body, now(), 300).is_ok()
}

fn theirs(delivery: &Delivery) -> bool {
    let Ok(webhook) = Webhook::new(&delivery.secret) else { return false };
    let mut headers = HeaderMap::new();
    for (name, value) in &delivery.headers {
        headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap());
    }
    webhook.verify(&delivery.body, &headers).is_ok()
}

/// Which of the two accepts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Only {
    Ours,
    Theirs,
}

fn value<'a>(delivery: &'a Delivery, name: &str) -> &'a [u8] {
    delivery.headers.iter().find(|(n, _)| *n == name).map_or(b"", |(_, value)| value)
}

fn any_value(delivery: &Delivery, wanted: impl Fn(&[u8]) -> bool) -> bool {
    delivery.headers.iter().any(|(_, value)| wanted(value))
}

/// A reason, who accepts for it, and whether it applies.
type Difference = (&'static str, Only, fn(&Delivery) -> bool);

/// Everything that the two may differ in, and why we do what we do.
const DIFFERENCES: [Difference; 11] = [
    ("a body is bytes: one that is not UTF-8 is authentic all the same", Only::Ours, |d| {
        str::from_utf8(&d.body).is_err()
    }),
    ("a secret may lack its padding, or end in the newline of its file", Only::Ours, |d| {
        Webhook::new(&d.secret).is_err()
    }),
    ("white space round a header's value is not part of it", Only::Ours, |d| {
        any_value(d, |value| value != value.trim_ascii())
    }),
    ("an entry that is no text is skipped, as every other one that is not ours", Only::Ours, |d| {
        !value(d, "webhook-signature").is_ascii()
    }),
    ("a number has one text: the text is what is signed, so it is not rendered anew", Only::Theirs, |d| {
        matches!(value(d, "webhook-timestamp"), [b'+', ..] | [b'0', _, ..])
    }),
    ("an id is 1 to 128 visible characters, for it is stored", Only::Theirs, |d| {
        let id = value(d, "webhook-id");
        id.is_empty() || id.len() > 128 || !id.iter().all(u8::is_ascii_graphic)
    }),
    ("each signature costs work, so there are at most eight", Only::Theirs, |d| {
        value(d, "webhook-signature").split(|byte| *byte == b' ').filter(|entry| !entry.is_empty()).count()
            > 8
    }),
    ("and at most 4096 bytes of them", Only::Theirs, |d| value(d, "webhook-signature").len() > 4096),
    ("of a header that is there twice nobody knows which one is meant", Only::Theirs, |d| {
        d.headers
            .iter()
            .enumerate()
            .any(|(place, (name, _))| d.headers[..place].iter().any(|(n, _)| n == name))
    }),
    ("a request speaks one scheme", Only::Theirs, |d| {
        d.headers.iter().any(|(name, _)| *name == "x-goog-signature")
    }),
    ("the empty key is everybody's", Only::Theirs, |d| d.secret.trim_start_matches("whsec_").is_empty()),
];

fn sign(secret: &str, id: &str, timestamp: i64, body: &[u8]) -> String {
    // The other one's own words; where it has none, its rule by its own library would be a copy of ours.
    Webhook::new(secret).unwrap().sign(id, timestamp, body).unwrap()
}

fn delivery(id: &str, time: i64, body: &[u8]) -> Delivery {
    let headers = vec![
        ("webhook-id", id.as_bytes().to_vec()),
        ("webhook-timestamp", time.to_string().into_bytes()),
        ("webhook-signature", sign(SECRET, id, time, body).into_bytes()),
    ];
    Delivery { secret: SECRET.into(), headers, body: body.to_vec() }
}

/// Compares one delivery; tells whether both accept it.
fn compare(delivery: &Delivery) -> Result<bool, String> {
    let only = match (ours(delivery), theirs(delivery)) {
        (ours, theirs) if ours == theirs => return Ok(ours),
        (true, _) => Only::Ours,
        (false, _) => Only::Theirs,
    };
    let explained = DIFFERENCES.iter().any(|(_, who, applies)| *who == only && applies(delivery));
    if explained { Ok(false) } else { Err(format!("accepted by {only:?} only: {delivery:?}")) }
}

/// One example for each difference: a list that holds more than there is would hide something.
#[test]
fn each_difference_is_one() {
    let time = now();
    let good = delivery("msg_1", time, b"{}");
    assert!(ours(&good) && theirs(&good));
    let set = |name: &str, value: Vec<u8>| {
        let mut delivery = good.clone();
        delivery.headers.iter_mut().find(|(n, _)| *n == name).unwrap().1 = value;
        delivery
    };
    let add = |name: &'static str, value: &[u8]| {
        let mut delivery = good.clone();
        delivery.headers.push((name, value.to_vec()));
        delivery
    };
    let signature = value(&good, "webhook-signature");
    // Signed by ourselves: the other one does not sign such a body. A vector, at its own time.
    let vectors = crate::vectors::all();
    let binary = vectors.iter().find(|vector| vector.name.ends_with("body_not_utf8")).unwrap();
    let headers = binary.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let keys = [Key::parse(str::from_utf8(&binary.secrets[0]).unwrap()).unwrap()];
    assert!(verify(Scheme::StandardWebhooks(&keys), headers, &binary.body, binary.now, 300).is_ok());
    assert!(Webhook::new(SECRET).unwrap().sign("a", time, &binary.body).is_err());

    let empty = Delivery {
        secret: "whsec_".into(),
        ..set("webhook-signature", sign("whsec_", "msg_1", time, b"{}").into_bytes())
    };
    let examples = [
        None,
        Some(Delivery { secret: format!("{SECRET}\n"), ..good.clone() }),
        Some(set("webhook-timestamp", format!(" {time}").into_bytes())),
        Some(set("webhook-signature", [b"\xff ", signature].concat())),
        Some(set("webhook-timestamp", format!("+{time}").into_bytes())),
        Some(delivery("msg 1", time, b"{}")),
        Some(set("webhook-signature", [&b"v1,x ".repeat(8), signature].concat())),
        Some(set("webhook-signature", [&[b'x'; 4096][..], b" ", signature].concat())),
        Some(add("webhook-id", b"msg_2")),
        Some(add("x-goog-signature", b"00")),
        Some(empty),
    ];
    for ((why, only, applies), example) in DIFFERENCES.iter().zip(examples) {
        let Some(example) = example else { continue };
        let wanted = (*only == Only::Ours, *only == Only::Theirs);
        assert_eq!((ours(&example), theirs(&example)), wanted, "{why}");
        assert!(applies(&example), "{why}");
        let others = DIFFERENCES.iter().filter(|(_, who, applies)| who == only && applies(&example)).count();
        assert_eq!(others, 1, "{why}: another one explains it too");
    }
    for id in ["", &"a".repeat(129)] {
        let example = delivery(id, time, b"{}");
        assert_eq!((ours(&example), theirs(&example)), (false, true), "{id:?}");
    }
}

/// The texts that a header of signatures is put together from; `good` stands for the right one.
fn entries() -> impl Strategy<Value = Vec<&'static str>> {
    let entry = prop::sample::select(vec![
        "good", "good", "good", "other", "v1,", "v1,AAAA", "v1", "v1a,AAAA", "v2,AAAA", "garbage", "", ",",
        "a.b.c", "cut", "urlsafe", "V1", "\t",
    ]);
    prop::collection::vec(entry, 0..11)
}

#[test]
fn both_judge_alike_but_for_the_list() {
    let ids = prop_oneof![4 => "msg_[a-z0-9]{1,20}", 1 => "[ -~]{0,20}", 1 => "[a-z.]{120,140}"];
    let skew = prop_oneof![3 => -290_i64..=290, 1 => prop::sample::select(vec![-310_i64, 310, -1_000_000, 1_000_000])];
    let forms = prop::sample::select(vec![
        "", "", "", "", "", "", "", "", "", "", "+", "0", "00", " ", "-", "x", "1e",
    ]);
    let bodies = prop_oneof!["[ -~]{0,60}", ".{0,60}"];
    let secrets = prop::sample::select(vec!["", "", "", "", "", "", "\n", "="]);
    let changes = prop::option::weighted(0.2, (0_usize..4, any::<prop::sample::Index>(), 1_u8..=255));
    let strategy = (ids, skew, forms, entries(), bodies, secrets, changes);
    let (accepted, refused) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(Config { cases: 4000, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&strategy, |(id, skew, form, entries, body, suffix, change)| {
        let time = now() + skew;
        let good = sign(SECRET, &id, time, body.as_bytes());
        let list: Vec<String> = entries
            .iter()
            .map(|entry| match *entry {
                "good" => good.clone(),
                "other" => sign(OTHER, &id, time, body.as_bytes()),
                "cut" => good[..good.len() - 1].to_owned(),
                "urlsafe" => good.replace('+', "-").replace('/', "_"),
                "V1" => good.replace("v1", "V1"),
                text => text.to_owned(),
            })
            .collect();
        let mut parts = [
            id.into_bytes(),
            format!("{form}{time}").into_bytes(),
            list.join(" ").into_bytes(),
            body.into_bytes(),
        ];
        if let Some((part, place, flip)) = change
            && !parts[part].is_empty()
        {
            let place = place.index(parts[part].len());
            parts[part][place] ^= flip;
        }
        let [id, timestamp, signature, body] = parts;
        let headers =
            vec![("webhook-id", id), ("webhook-timestamp", timestamp), ("webhook-signature", signature)];
        // What cannot be a header's value does not arrive at all.
        prop_assume!(headers.iter().all(|(_, value)| HeaderValue::from_bytes(value).is_ok()));
        let delivery = Delivery { secret: format!("{SECRET}{suffix}"), headers, body };
        let both = compare(&delivery).map_err(TestCaseError::fail)?;
        let counter = if both { &accepted } else { &refused };
        counter.set(counter.get() + 1);
        Ok(())
    });
    outcome.unwrap();
    // Otherwise they would agree by refusing everything.
    assert!(accepted.get() > 200 && refused.get() > 200, "{accepted:?} {refused:?}");
}
