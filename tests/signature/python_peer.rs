//! The same deliveries, judged by the Python package `standardwebhooks`, which most receivers in that language call. The
//! environment is `testenv/venv.sh`'s; that there is none is a failure, not a skip.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use data_encoding::{BASE64, HEXLOWER};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use crate::deliveries::{
    Delivery, Difference, Only, SECRET, assert_example, compare, deliveries, delivery, now, ours,
};

const CASES: usize = 4000;

/// Everything that the two may differ in, and why we do what we do.
const DIFFERENCES: [Difference; 8] = [
    ("an entry that cannot be read is skipped, as every other one that is not ours", Only::Ours, |d| {
        d.entries().any(|entry| !has_one_comma(entry) || encoded(entry).is_some_and(|e| !decodes(e)))
    }),
    ("a number has one text: the text is what is signed, so it is not rendered anew", Only::Theirs, |d| {
        let text = d.value("webhook-timestamp").trim_ascii();
        text.is_empty() || !text.iter().all(u8::is_ascii_digit) || (text.len() > 1 && text[0] == b'0')
    }),
    ("an id is 1 to 128 visible characters, for it is stored", Only::Theirs, |d| {
        let id = d.value("webhook-id").trim_ascii();
        id.is_empty() || id.len() > 128 || !id.iter().all(u8::is_ascii_graphic)
    }),
    ("each signature costs work, so there are at most eight", Only::Theirs, |d| {
        d.entries().filter(|entry| !entry.is_empty()).count() > 8
    }),
    ("and at most 4096 bytes of them", Only::Theirs, |d| d.value("webhook-signature").len() > 4096),
    (
        "of a header that is there twice nobody knows which one is meant",
        Only::Theirs,
        Delivery::repeats_itself,
    ),
    ("a request speaks one scheme", Only::Theirs, |d| {
        d.headers.iter().any(|(name, _)| *name == "x-goog-signature")
    }),
    ("bytes have one text in base64", Only::Theirs, |d| {
        d.entries().filter_map(encoded).any(|e| BASE64.decode(e).is_err())
    }),
];

fn has_one_comma(entry: &[u8]) -> bool {
    entry.split(|byte| *byte == b',').count() == 2
}

/// What stands behind `v1,`.
fn encoded(entry: &[u8]) -> Option<&[u8]> {
    entry.strip_prefix(b"v1,")
}

/// Whether the other one's decoder makes bytes of it: it drops what is no base64, and wants the padding of the rest.
fn decodes(text: &[u8]) -> bool {
    let count = |wanted: fn(&u8) -> bool| text.iter().filter(|byte| wanted(byte)).count();
    let padding = count(|byte| *byte == b'=');
    let padded = match count(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')) % 4 {
        0 => true,
        1 => false,
        rest => padding >= 4 - rest,
    };
    text.is_ascii() && padded
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The verdicts, in the order of the deliveries: `accepted`, `refused`, or the name of an exception.
fn judged(name: &str, deliveries: &[Delivery]) -> Vec<String> {
    let made = Command::new("bash").arg(root().join("testenv/venv.sh")).output().unwrap();
    assert!(made.status.success(), "testenv/venv.sh: {}", String::from_utf8_lossy(&made.stderr));
    let python = Path::new(String::from_utf8(made.stdout).unwrap().trim()).join("bin/python");
    let lines = deliveries.iter().map(|delivery| {
        let headers = delivery.headers.iter().map(|(name, value)| json!([name, HEXLOWER.encode(value)]));
        let line = json!({
            "secret": delivery.secret,
            "headers": headers.collect::<Vec<_>>(),
            "body": HEXLOWER.encode(&delivery.body),
        });
        format!("{line}\n")
    });
    // By a file: a pipe in both directions could fill up.
    let file: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("judged-{name}"));
    fs::write(&file, lines.collect::<String>()).unwrap();
    let judge = Command::new(python)
        .arg(root().join("tests/signature/python_peer.py"))
        .stdin(Stdio::from(fs::File::open(&file).unwrap()))
        .output()
        .unwrap();
    fs::remove_file(&file).unwrap();
    assert!(judge.status.success(), "{}", String::from_utf8_lossy(&judge.stderr));
    let verdicts: Vec<String> = String::from_utf8(judge.stdout).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(verdicts.len(), deliveries.len());
    verdicts
}

/// One example for each difference: a list that holds more than there is would hide something.
#[test]
fn each_difference_is_one() {
    let time = now();
    let good = delivery("msg_1", time, b"{}");
    let signature = good.value("webhook-signature");
    let examples = [
        good.with("webhook-signature", [b"garbage ", signature].concat()),
        good.with("webhook-timestamp", format!("{time}.0")),
        delivery("msg 1", time, b"{}"),
        good.with("webhook-signature", [&b"v2,x ".repeat(8), signature].concat()),
        good.with("webhook-signature", [b"v2,", &[b'x'; 4096][..], b" ", signature].concat()),
        good.and("webhook-id", "msg_1"),
        good.and("x-goog-signature", "00"),
        good.with("webhook-signature", [b"v1,!", &signature[3..]].concat()),
    ];
    let verdicts = judged("examples", &examples);
    for ((difference, example), verdict) in DIFFERENCES.iter().zip(&examples).zip(&verdicts) {
        assert_example(example, verdict == "accepted", difference, &DIFFERENCES);
    }
    // A body is bytes: there the other one has no verdict at all, be the delivery authentic or not.
    let binary = Delivery { body: b"\xff".to_vec(), ..good.clone() };
    assert_eq!(judged("binary", &[good, binary]), ["accepted", "UnicodeDecodeError"]);
}

#[test]
fn both_judge_alike_but_for_the_list() {
    let mut runner = TestRunner::new(Config::default());
    let some: Vec<Delivery> =
        (0..CASES).map(|_| deliveries().new_tree(&mut runner).unwrap().current()).collect();
    let verdicts = judged("some", &some);
    let (mut accepted, mut refused, mut raised) = (0, 0, 0);
    for (delivery, verdict) in some.iter().zip(&verdicts) {
        compare(delivery, verdict == "accepted", &DIFFERENCES)
            .unwrap_or_else(|difference| panic!("{verdict}: {difference}"));
        match verdict.as_str() {
            "accepted" => accepted += 1,
            "refused" => refused += 1,
            _ => raised += 1,
        }
    }
    println!("{accepted} accepted, {refused} refused, {raised} ended in an exception of the other one");
    // Otherwise they would agree by refusing everything.
    assert!(accepted > 200 && refused > 200, "{accepted} {refused}");
    assert!(some.iter().any(|delivery| delivery.secret != SECRET && ours(delivery)));
}
