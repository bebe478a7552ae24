use std::time::Duration;

use super::*;
use crate::gemini::{BatchStats, State};

const K: &str = "kkkkkkkkkkkkkkkkkkkkkkkkkk";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn secret() -> OperatorSecret {
    OperatorSecret::new(vec![7; 32])
}

fn entry() -> Entry {
    Entry {
        submit_key: K.into(),
        namespace: "team-a".into(),
        name: "tickets".into(),
        uid: "u".into(),
        api_key_secret_ref: SecretKeyRef { name: "gemini".into(), key: "apiKey".into() },
        key_fingerprint: "key".into(),
        remote_name: None,
        marker: format!("gb1.{K}.1.tag"),
        input_file: Some(format!("files/gb-{K}-own")),
        model: "gemini-3.5-flash".into(),
        operation: "GenerateContent".into(),
        input_sha256: "abc".into(),
        deletion_policy: DeletionPolicy::Delete,
        in_doubt: false,
        since: at(1000),
        clear_since: None,
    }
}

fn aged(key: &str, since: i64) -> Entry {
    Entry { submit_key: key.into(), since: at(since), ..entry() }
}

fn job(name: &str, display_name: &str, state: State) -> Batch {
    Batch {
        name: format!("batches/{name}"),
        display_name: display_name.into(),
        model: String::new(),
        state,
        raw_state: String::new(),
        create_time: None,
        end_time: None,
        input_file: None,
        responses_file: Some(format!("files/{name}")),
        inlined: false,
        stats: BatchStats::default(),
        error: None,
    }
}

#[test]
fn finds_what_is_provably_ours_and_nothing_else() {
    let ours = |n| submit::marker(&secret(), K, n, &entry().claim());
    let other = submit::marker(&secret(), "other", 1, &entry().claim());
    let elsewhere = submit::marker(&secret(), K, 1, &Claim { name: "copy", ..entry().claim() });
    let cancel = |name: &str| Act::Cancel { job: format!("batches/{name}") };
    let delete = |name: &str| Act::Delete {
        job: format!("batches/{name}"),
        responses_file: Some(format!("files/{name}")),
    };
    let remove = |file: &str| Act::Remove { file: format!("files/gb-{K}-{file}") };
    let files = ["own", "older"].map(|nonce| format!("files/gb-{K}-{nonce}"));
    let others = ["files/gb-other-x".to_owned(), "files/report".to_owned()];
    let recorded = Entry { remote_name: Some("batches/r".into()), ..entry() };
    let cancels = Entry { deletion_policy: DeletionPolicy::Cancel, ..entry() };
    let doubtful = Entry { in_doubt: true, ..cancels.clone() };
    let (none, nothing) = (vec![], Found::default());
    let acts = |acts, proven| Found { acts, foreign: false, proven };
    for (what, entry, jobs, files, expected) in [
        ("nothing", entry(), none.clone(), &others[..], nothing),
        ("another batch's", entry(), vec![job("a", &other, State::Running)], &[], acts(vec![], false)),
        ("running", entry(), vec![job("a", &ours(1), State::Running)], &[], acts(vec![cancel("a")], true)),
        (
            "any attempt, each as far as it is",
            entry(),
            vec![job("a", &ours(1), State::Cancelled), job("b", &ours(7), State::Pending)],
            &[],
            acts(vec![delete("a"), cancel("b")], true),
        ),
        (
            "recorded, whatever it is called",
            recorded,
            vec![job("r", "renamed", State::Succeeded)],
            &[],
            acts(vec![delete("r")], true),
        ),
        (
            "made for another place",
            entry(),
            vec![job("a", &elsewhere, State::Running)],
            &[],
            Found { acts: vec![], foreign: true, proven: false },
        ),
        ("its files", entry(), none.clone(), &files[..], acts(vec![remove("own"), remove("older")], true)),
        ("a file that anybody can name so", entry(), none, &files[1..], acts(vec![remove("older")], false)),
        (
            "policy Cancel, ended: job and files stay",
            cancels.clone(),
            vec![job("a", &ours(1), State::Cancelled)],
            &files[..],
            acts(vec![], true),
        ),
        (
            "policy Cancel, running",
            cancels,
            vec![job("a", &ours(1), State::Running)],
            &files[..],
            acts(vec![cancel("a")], true),
        ),
        (
            "policy Cancel, in doubt: no file, no job later",
            doubtful,
            vec![],
            &files[..1],
            acts(vec![remove("own")], true),
        ),
    ] {
        assert_eq!(found(&entry, &secret(), &jobs, files), expected, "{what}");
    }
}

#[test]
fn goes_when_looks_that_count_have_shown_nothing_for_long_enough() {
    let timing = Timing { listing_lag: Duration::from_secs(100), ..Timing::production() };
    let look = |began: i64| Look {
        began: at(began),
        ended: at(began + 10),
        fingerprint: "key".into(),
        complete: true,
        found: Found::default(),
    };
    let acted = |look| Look {
        found: Found { acts: vec![Act::Remove { file: "f".into() }], ..Found::default() },
        ..look
    };
    let proven = |look| {
        let look: Look = acted(look);
        Look { found: Found { proven: true, ..look.found.clone() }, ..look }
    };
    let foreign = |look| Look { found: Found { foreign: true, ..Found::default() }, ..look };
    let clear = |since| Entry { clear_since: Some(at(since)), ..entry() };
    let other_key = |began| Look { fingerprint: "other".into(), ..look(began) };
    let stays = |entry| Fate::Stays(Box::new(entry));
    for (what, entry, look, expected) in [
        ("no key, no look", entry(), None, stays(entry())),
        ("the first that shows nothing", entry(), Some(look(2000)), stays(clear(2010))),
        ("too soon after it", clear(2010), Some(look(2109)), stays(clear(2010))),
        ("late enough", clear(2010), Some(look(2110)), Fate::Settled),
        ("found after all", clear(2010), Some(acted(look(2110))), stays(entry())),
        ("not whole", clear(2010), Some(Look { complete: false, ..look(2110) }), stays(clear(2010))),
        ("not whole at first", entry(), Some(Look { complete: false, ..look(2110) }), stays(entry())),
        ("a stranger's with our K", clear(2010), Some(foreign(look(2110))), stays(clear(2010))),
        ("another key sees nothing", clear(2010), Some(other_key(2110)), stays(clear(2010))),
        ("another key sees nothing at first", entry(), Some(other_key(2110)), stays(entry())),
        (
            "another key has seen it: from now on it counts",
            clear(2010),
            Some(proven(other_key(2110))),
            stays(Entry { key_fingerprint: "other".into(), ..entry() }),
        ),
    ] {
        assert_eq!(judge(&entry, look.as_ref(), at(2200), &timing), expected, "{what}");
    }
    let watched = 1000 + 72 * 3600;
    assert_eq!(judge(&entry(), None, at(watched - 1), &timing), stays(entry()));
    assert_eq!(judge(&entry(), None, at(watched), &timing), Fate::Expired);
    let found = acted(look(watched));
    assert_eq!(judge(&entry(), Some(&found), at(watched), &timing), Fate::Expired);
    assert_eq!(judge(&clear(2010), Some(&look(watched)), at(watched), &timing), Fate::Settled);
}

#[test]
fn one_batch_is_one_entry_as_old_as_the_first() {
    let mut data = Data::new();
    let known = Entry { remote_name: Some("batches/a".into()), in_doubt: true, ..aged(K, 1000) };
    assert_eq!(admit(&mut data, known.clone()).unwrap(), Admitted { is_new: true, evicted: vec![] });
    let again = Entry { input_file: Some("files/newer".into()), ..aged(K, 2000) };
    assert_eq!(admit(&mut data, again).unwrap(), Admitted { is_new: false, evicted: vec![] });
    assert_eq!(data.len(), 1);
    assert_eq!(read(&data[K]), Some(Entry { input_file: Some("files/newer".into()), ..known }));
}

#[test]
fn an_entry_is_kept_in_a_form_that_older_ones_have() {
    let text = serde_json::to_string(&Entry { clear_since: Some(at(5)), ..entry() }).unwrap();
    assert_eq!(read(&text), Some(Entry { clear_since: Some(at(5)), ..entry() }));
    for field in ["submitKey", "namespace", "apiKeySecretRef", "keyFingerprint", "deletionPolicy", "since"] {
        assert!(text.contains(&format!("\"{field}\"")), "{text}");
    }
    assert_eq!(read("{}"), None);
}

#[test]
fn the_oldest_leave_when_there_is_no_room() {
    let name = |i: usize| format!("k{i:03}");
    let mut data = Data::new();
    for i in 0..MAX_ENTRIES {
        // Younger ones first, so that neither name nor place in the map decides.
        let since = i64::try_from(MAX_ENTRIES - i).unwrap();
        assert_eq!(admit(&mut data, aged(&name(i), since)).unwrap().evicted, []);
    }
    // The newcomer is the oldest of all, and stays all the same: its object goes because it is written.
    let evicted = admit(&mut data, aged("new", 0)).unwrap().evicted;
    assert_eq!(evicted.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), [name(MAX_ENTRIES - 1)]);
    assert!(data.len() == MAX_ENTRIES && data.contains_key("new"));
    // What cannot be read is never worked off.
    data.remove("new");
    data.insert("strange".into(), "no entry".into());
    let evicted = admit(&mut data, aged("newer", 9999)).unwrap().evicted;
    assert_eq!(evicted, [("strange".to_owned(), "no entry".to_owned())]);
}

#[test]
fn stays_far_below_what_a_config_map_can_hold() {
    let mut data = Data::new();
    for i in 0..MAX_ENTRIES {
        // Longer than any entry can be.
        let long = Entry { marker: "x".repeat(4000), ..aged(&format!("k{i:03}"), i64::try_from(i).unwrap()) };
        admit(&mut data, long).unwrap();
    }
    let bytes: usize = data.iter().map(|(key, text)| key.len() + text.len()).sum();
    assert!(bytes <= MAX_BYTES && bytes > MAX_BYTES - 10_000, "{bytes}");
    assert!(data.contains_key("k499") && !data.contains_key("k000"));
    const { assert!(MAX_BYTES < 900 * 1024) };
}

#[test]
fn a_live_object_with_its_key_has_taken_it_over() {
    let note = |key: &str, name: &str| submit::annotation(&secret(), key, "key", "team-a", name);
    let meta = |annotation: Option<String>| ObjectMeta {
        annotations: annotation.map(|text| BTreeMap::from([(SUBMIT_KEY_ANNOTATION.to_owned(), text)])),
        ..ObjectMeta::default()
    };
    let deleted = ObjectMeta {
        deletion_timestamp: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(5))),
        ..meta(Some(note(K, "tickets")))
    };
    for (what, meta, expected) in [
        ("a backup", meta(Some(note(K, "tickets"))), true),
        ("made again from its manifest", meta(Some(note("other", "tickets"))), false),
        ("not taken up yet", meta(None), false),
        ("a copy's", meta(Some(note(K, "copy"))), false),
        ("the same, going", deleted, false),
    ] {
        assert_eq!(is_restored(&entry(), &meta, &secret()), expected, "{what}");
    }
}
