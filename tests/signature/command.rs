//! `gemini-operator signature verify`, as it is built.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::vectors;

/// Files for one call.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("signature-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn write(&self, name: &str, content: &[u8]) -> OsString {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path.into()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn run(arguments: &[OsString]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gemini-operator"))
        .args(["signature", "verify"])
        .args(arguments)
        .env_clear()
        // A panic would then be longer, and must not be there at all.
        .env("RUST_BACKTRACE", "1")
        .output()
        .unwrap()
}

/// Status, standard output and standard error.
fn said(arguments: &[OsString]) -> (i32, String, String) {
    let output = run(arguments);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn words(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(OsString::from).collect()
}

fn header(name: &str, value: &[u8]) -> [OsString; 2] {
    let mut text = format!("{name}: ").into_bytes();
    text.extend_from_slice(value);
    ["--header".into(), OsStr::from_bytes(&text).to_owned()]
}

const ACCEPTED: (i32, &str, &str) = (0, "accepted\n", "");

/// A delivery that is good, to be spoilt: its flags up to the secrets.
fn good(files: &Files) -> (Vec<OsString>, Vec<OsString>) {
    let all = vectors::all();
    let vector = all.iter().find(|vector| vector.name == "StandardWebhooks valid_unicode_body").unwrap();
    let mut flags = words("--scheme StandardWebhooks --now 1787256625 --body");
    flags.push(files.write("body", &vector.body));
    for (name, value) in &vector.headers {
        flags.extend(header(name, value.as_bytes()));
    }
    (flags, vec!["--secret-file".into(), files.write("secret", &vector.secrets[0])])
}

#[test]
fn all_vectors() {
    for vector in vectors::all() {
        let files = Files::new();
        let mut flags = words(&format!("--scheme {} --tolerance {}s", vector.scheme, vector.tolerance));
        flags.extend(words(&format!("--now {} --body", vector.now)));
        flags.push(files.write("body", &vector.body));
        for (number, secret) in vector.secrets.iter().enumerate() {
            // As an editor leaves it.
            let text = [secret, &b"\n"[..]].concat();
            flags.extend(["--secret-file".into(), files.write(&format!("secret-{number}"), &text)]);
        }
        if !vector.jwks.is_empty() {
            flags.extend(["--jwks".into(), files.write("jwks", &vector.jwks)]);
        }
        if !vector.audience.is_empty() {
            flags.extend(["--audience".into(), vector.audience.clone().into()]);
        }
        for (name, value) in &vector.headers {
            flags.extend(header(&name.to_uppercase(), value.as_bytes()));
        }
        let (status, out, err) = said(&flags);
        match vector.refused.as_deref() {
            None => assert_eq!((status, out.as_str(), err.as_str()), ACCEPTED, "{}", vector.name),
            // That key is another webhook's, of which a file knows nothing; as a secret it is too short.
            Some("key_reused") => {
                assert!(!vector.signing_secrets.is_empty());
                assert_eq!((status, out.as_str()), (1, "rejected: no_usable_key\n"));
            }
            Some(reason) => {
                assert_eq!(status, 1, "{}", vector.name);
                let whole = format!("rejected: {reason}\n");
                assert!(
                    if reason.is_empty() { out.starts_with(&whole[..10]) } else { out == whole },
                    "{out}"
                );
            }
        }
    }
}

#[test]
fn several_secrets_and_any_bytes() {
    let files = Files::new();
    let (delivery, secret) = good(&files);
    let other = ["--secret-file".into(), files.write("other", b"AAECAwQFBgcICQoLDA0ODw")];
    let with = |more: &[&[OsString]]| said(&[&[&delivery[..]], more].concat().concat());
    let accepted = (0, "accepted\n".to_owned(), String::new());
    assert_eq!(with(&[&other, &secret]), accepted);
    assert_eq!(with(&[&secret, &other]), accepted);
    assert_eq!(with(&[&other]).1, "rejected: no_matching_signature\n");
    // A header that is not ours may hold anything; one of ours may not, and is refused for what it is.
    assert_eq!(with(&[&secret, &header("x-other", b"\xff\x80")]), accepted);
    assert_eq!(with(&[&secret, &header("Webhook-Id", b"\xff")]).1, "rejected: duplicate_header\n");
    let without_id: Vec<OsString> = {
        let place = delivery.iter().position(|flag| flag.to_string_lossy().contains("webhook-id")).unwrap();
        [&delivery[..place - 1], &delivery[place + 1..]].concat()
    };
    let odd = said(&[&without_id[..], &secret, &header("webhook-id", b"\xff\xfe")].concat());
    assert_eq!((odd.0, odd.1.as_str()), (1, "rejected: bad_id\n"));
    assert_eq!(said(&[&without_id[..], &secret].concat()).1, "rejected: missing_header\n");
    // A key that is none is named, but not shown.
    let bad = ["--secret-file".into(), files.write("bad", b"\xff secret words")];
    let (status, out, err) = with(&[&secret, &bad]);
    assert_eq!((status, out.as_str()), (1, "rejected: no_usable_key\n"));
    assert!(err.contains("/bad is no key") && !err.contains("words"), "{err}");
}

/// Without `--now` it is the machine's clock, and the window is five minutes.
#[test]
fn the_clock() {
    let files = Files::new();
    let (delivery, secret) = good(&files);
    let without_now: Vec<OsString> =
        delivery.iter().filter(|flag| *flag != "--now" && *flag != "1787256625").cloned().collect();
    let at = |flags: &str| said(&[&without_now[..], &secret, &words(flags)].concat()).1;
    assert_eq!(at("--now 1787256925"), "accepted\n");
    assert_eq!(at("--now 1787256926"), "rejected: timestamp_too_old\n");
    assert_eq!(at("--now 1787256926 --tolerance 5m1s"), "accepted\n");
    assert_eq!(at("--now 1787256324"), "rejected: timestamp_too_new\n");
    assert_eq!(at("--now -1"), "rejected: timestamp_too_new\n");
    let real = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let age = format!("--tolerance {}h", real.abs_diff(1_787_256_625) / 3600 + 1);
    assert_eq!(at(&age), "accepted\n");
}

#[test]
fn what_is_beside_the_verdict() {
    let files = Files::new();
    let all = vectors::all();
    let vector = all.iter().find(|vector| vector.name == "DynamicJwt valid_event_in_claims").unwrap();
    let mut delivery = words("--scheme DynamicJwt --now 1787256625 --body");
    delivery.push(files.write("body", &vector.body));
    for (name, value) in &vector.headers {
        delivery.extend(header(name, value.as_bytes()));
    }
    let jwks = ["--jwks".into(), files.write("jwks", &vector.jwks)];
    let with = |more: &[&[OsString]]| said(&[&[&delivery[..]], more].concat().concat());

    let (status, out, err) = with(&[&jwks, &words("--audience https://other")]);
    assert_eq!((status, out.as_str()), (1, "rejected: aud\n"));
    assert!(err.ends_with(&format!("the token's audience is {}\n", vector.audience)), "{err}");

    let audience = words(&format!("--audience {}", vector.audience));
    assert_eq!(with(&[&jwks, &audience, &words("--issuer accounts.google.com")]).1, "rejected: iss\n");
    let issuer = words("--issuer https://generativelanguage.googleapis.com");
    assert_eq!(with(&[&jwks, &audience, &issuer]).1, "accepted\n");

    for (document, why) in
        [(&b"<html>"[..], "list \"keys\""), (&vec![b' '; 70_000], "65536 bytes"), (b"{\"keys\":[]}", "")]
    {
        let jwks = ["--jwks".into(), files.write("odd", document)];
        let (status, out, err) = with(&[&jwks, &audience]);
        assert_eq!((status, out.as_str()), (1, "rejected: no_usable_key\n"));
        assert!(err.contains(why) && err.is_empty() == why.is_empty(), "{err}");
    }
}

#[test]
fn bodies_at_the_limit() {
    let files = Files::new();
    let (delivery, secret) = good(&files);
    for (size, wanted) in [(256 * 1024, "no_matching_signature"), (256 * 1024 + 1, "too_large")] {
        let mut flags = [&delivery[..], &secret].concat();
        let place = flags.iter().position(|flag| flag == "--body").unwrap();
        flags[place + 1] = files.write("large", &vec![b'a'; size]);
        assert_eq!(said(&flags).1, format!("rejected: {wanted}\n"));
    }
}

#[test]
fn what_cannot_be_judged_is_a_usage_error() {
    let files = Files::new();
    let (delivery, secret) = good(&files);
    let jwks = ["--jwks".into(), files.write("jwks", b"{\"keys\":[]}")];
    let scheme = |name: &str| {
        let mut flags = delivery.clone();
        flags[1] = name.into();
        flags
    };
    let standard = scheme("StandardWebhooks");
    let huge = ["--secret-file".into(), files.write("huge", &vec![b'a'; 100_000])];
    for (flags, hint) in [
        (vec![], "--scheme"),
        (scheme("standard"), "StandardWebhooks, DynamicV1a, DynamicJwt, XGoogSignature"),
        (standard.clone(), "StandardWebhooks needs --secret-file"),
        (scheme("DynamicV1a"), "DynamicV1a needs --jwks"),
        ([&scheme("DynamicJwt")[..], &jwks].concat(), "DynamicJwt needs --audience"),
        ([&scheme("DynamicV1a")[..], &jwks, &secret].concat(), "no use for --secret-file"),
        ([&standard[..], &jwks, &secret].concat(), "no use for --jwks"),
        ([&standard[..], &secret, &words("--audience a")].concat(), "no use for --audience"),
        ([&standard[..], &secret, &words("--issuer a")].concat(), "no use for --issuer"),
        ([&standard[..], &words("--secret-file /nonexistent/file")].concat(), "/nonexistent/file"),
        ([&standard[..], &huge].concat(), "that is no secret"),
        ([&standard[..], &secret, &words("--tolerance 300")].concat(), "20m or 1h30m"),
        ([&standard[..], &secret, &words("--now soon")].concat(), "--now"),
        ([&standard[..], &secret, &words("--header webhook-id")].concat(), "webhook-id: msg_1"),
        ([&standard[..], &secret, &words("--header :v")].concat(), "webhook-id: msg_1"),
        ([&standard[..], &secret, &header("web hook", b"v")].concat(), "webhook-id: msg_1"),
        ([&standard[..], &secret, &header("\u{e9}", b"v")].concat(), "webhook-id: msg_1"),
        ([&scheme("XGoogSignature")[..], &words("--secret-file /tmp")].concat(), "--secret-file /tmp"),
    ] {
        let (status, out, err) = said(&flags);
        assert_eq!((status, out.as_str()), (2, ""), "{flags:?}: {err}");
        assert!(err.starts_with("gemini-operator: ") && err.lines().count() == 1, "{err}");
        assert!(err.contains(hint), "{hint} in: {err}");
    }
}

/// The page that the command's help names knows every reason that there is.
#[test]
fn every_reason_is_explained() {
    let source = include_str!("../../src/receiver/signature/mod.rs");
    let page = include_str!("../../docs/rejected-deliveries.md");
    let reasons: Vec<&str> =
        source.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(reasons.len() >= 24 && reasons.contains(&"key_reused"), "{reasons:?}");
    for reason in reasons {
        let row = page
            .lines()
            .find(|line| line.split('|').nth(1).is_some_and(|cell| cell.contains(&format!("`{reason}`"))));
        assert!(row.is_some(), "docs/rejected-deliveries.md does not explain {reason}");
    }
}
