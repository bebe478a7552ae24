//! Deliveries that several verifiers judge, and how two verdicts are compared.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::HeaderValue;
use gemini_operator::receiver::signature::standard_v1::Key;
use gemini_operator::receiver::signature::{Scheme, verify};
use proptest::prelude::*;
use standardwebhooks::Webhook;

pub const SECRET: &str = "whsec_8bu+XSSczpNiAB71OJD7oFB40AVGsKu5";
const OTHER: &str = "whsec_RSiskZV2N0hvfooFgHFmXMLUi4foU7ACKP+6PNClWGI=";

/// A delivery to a receiver with one secret.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub secret: String,
    pub headers: Vec<(&'static str, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Delivery {
    /// The value of a header; of one that is there twice the first.
    pub fn value(&self, name: &str) -> &[u8] {
        self.headers.iter().find(|(n, _)| *n == name).map_or(b"", |(_, value)| value)
    }

    pub fn any_value(&self, wanted: impl Fn(&[u8]) -> bool) -> bool {
        self.headers.iter().any(|(_, value)| wanted(value))
    }

    /// Whether a header is there twice.
    pub fn repeats_itself(&self) -> bool {
        let earlier = |place: usize, name: &str| self.headers[..place].iter().any(|(n, _)| *n == name);
        self.headers.iter().enumerate().any(|(place, (name, _))| earlier(place, name))
    }

    /// The entries of the header of signatures, as the Standard Webhooks text separates them.
    pub fn entries(&self) -> impl Iterator<Item = &[u8]> {
        self.value("webhook-signature").split(|byte| *byte == b' ')
    }

    /// The same with another value of a header.
    pub fn with(&self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        let mut delivery = self.clone();
        delivery.headers.iter_mut().find(|(n, _)| *n == name).unwrap().1 = value.into();
        delivery
    }

    /// The same with one header more.
    pub fn and(&self, name: &'static str, value: impl Into<Vec<u8>>) -> Self {
        let mut delivery = self.clone();
        delivery.headers.push((name, value.into()));
        delivery
    }
}

/// The other verifiers ask the machine's clock, so ours is told that one.
pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// Our verdict.
pub fn ours(delivery: &Delivery) -> bool {
    let Ok(key) = Key::parse(&delivery.secret) else { return false };
    let headers = delivery.headers.iter().map(|(name, value)| (*name, value.as_slice()));
    verify(Scheme::StandardWebhooks(&[key]), headers, &delivery.body, now(), 300).is_ok()
}

/// Which of two verifiers accepts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Only {
    Ours,
    Theirs,
}

/// A reason, who accepts for it, and whether it applies.
pub type Difference = (&'static str, Only, fn(&Delivery) -> bool);

/// Compares the verdicts on one delivery; tells whether both accept it.
pub fn compare(delivery: &Delivery, theirs: bool, differences: &[Difference]) -> Result<bool, String> {
    let only = match (ours(delivery), theirs) {
        (ours, theirs) if ours == theirs => return Ok(ours),
        (true, _) => Only::Ours,
        (false, _) => Only::Theirs,
    };
    let explained = differences.iter().any(|(_, who, applies)| *who == only && applies(delivery));
    if explained { Ok(false) } else { Err(format!("accepted by {only:?} only: {delivery:?}")) }
}

/// An example of a difference is one: only who is named accepts it, and no other difference explains it.
pub fn assert_example(example: &Delivery, theirs: bool, difference: &Difference, all: &[Difference]) {
    let (why, only, applies) = difference;
    let wanted = (*only == Only::Ours, *only == Only::Theirs);
    assert_eq!((ours(example), theirs), wanted, "{why}");
    assert!(applies(example), "{why}");
    let explaining = all.iter().filter(|(_, who, applies)| who == only && applies(example)).count();
    assert_eq!(explaining, 1, "{why}: another one explains it too");
}

pub fn sign(secret: &str, id: &str, timestamp: i64, body: &[u8]) -> String {
    // Somebody else's words: our rule by our own library would be a copy of what is judged.
    Webhook::new(secret).unwrap().sign(id, timestamp, body).unwrap()
}

/// An authentic delivery.
pub fn delivery(id: &str, time: i64, body: &[u8]) -> Delivery {
    let headers = vec![
        ("webhook-id", id.as_bytes().to_vec()),
        ("webhook-timestamp", time.to_string().into_bytes()),
        ("webhook-signature", sign(SECRET, id, time, body).into_bytes()),
    ];
    Delivery { secret: SECRET.into(), headers, body: body.to_vec() }
}

/// The texts that a header of signatures is put together from; `good` stands for the right one.
fn texts() -> impl Strategy<Value = Vec<&'static str>> {
    let entry = prop::sample::select(vec![
        "good", "good", "good", "other", "v1,", "v1,AAAA", "v1", "v1a,AAAA", "v2,AAAA", "garbage", "", ",",
        "a.b.c", "cut", "urlsafe", "V1", "\t",
    ]);
    prop::collection::vec(entry, 0..11)
}

/// Deliveries near the edge of what is good.
pub fn deliveries() -> impl Strategy<Value = Delivery> {
    let ids = prop_oneof![4 => "msg_[a-z0-9]{1,20}", 1 => "[ -~]{0,20}", 1 => "[a-z.]{120,140}"];
    let skew = prop_oneof![3 => -290_i64..=290, 1 => prop::sample::select(vec![-310_i64, 310, -1_000_000, 1_000_000])];
    let forms = prop::sample::select(vec![
        "", "", "", "", "", "", "", "", "", "", "+", "0", "00", " ", "-", "x", "1e",
    ]);
    let bodies = prop_oneof!["[ -~]{0,60}", ".{0,60}"];
    let secrets = prop::sample::select(vec!["", "", "", "", "", "", "\n", "="]);
    let changes = prop::option::weighted(0.2, (0_usize..4, any::<prop::sample::Index>(), 1_u8..=255));
    let parts = (ids, skew, forms, texts(), bodies, secrets, changes);
    let deliveries = parts.prop_map(|(id, skew, form, entries, body, suffix, change)| {
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
        Delivery { secret: format!("{SECRET}{suffix}"), headers, body }
    });
    deliveries.prop_filter("what cannot be a header's value does not arrive at all", |delivery| {
        delivery.headers.iter().all(|(_, value)| HeaderValue::from_bytes(value).is_ok())
    })
}
