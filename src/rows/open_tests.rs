//! Where the output alone says which rows there were.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn open(expected: i64, output: &str) -> Harvest {
    let mut collector = Collector::open(expected);
    collector.push(output.as_bytes());
    collector.finish()
}

fn good(key: &str) -> String {
    json!({ "key": key, "response": {
        "candidates": [{ "content": { "parts": [{ "text": key }] }, "finishReason": "STOP" }],
        "usageMetadata": { "totalTokenCount": 10 } } })
    .to_string()
}

#[test]
fn without_the_input_the_output_gives_keys_and_order() {
    let failed = r#"{"key":"c","error":{"code":13,"message":"m"}}"#;
    let cut = r#"{"key":"d","resp"#;
    let output = [&good("b"), failed, "not json", &good("a"), &good("b"), cut, ""].join("\n");
    let harvest = open(6, &output);
    assert_eq!(
        (harvest.order, &harvest.keys[..]),
        (Order::Output, &["b", "c", "a", "d"].map(String::from)[..])
    );
    let classes: Vec<Class> = harvest.rows.iter().map(|r| r.class).collect();
    assert_eq!(classes, [Class::Ok, Class::Transient, Class::Ok, Class::BadJson]);
    // A line that names no key is counted, and belongs to no row; nothing is a stranger here.
    assert_eq!((harvest.bad_line_count, harvest.unknown_keys.count, harvest.duplicate_lines), (2, 0, 1));
    assert_eq!((harvest.missing_unnamed, harvest.total(), harvest.failed()), (2, 6, 4));
    assert_eq!((harvest.usage.total, harvest.usage.discarded), (20, 10));
    let missing = harvest.summaries().into_iter().find(|s| s.class == Class::Missing).unwrap();
    assert_eq!((missing.count, missing.sample_key.as_str()), (2, ""));
}

#[test]
fn more_keys_than_rows_are_all_kept() {
    let harvest = open(1, &[good("a"), good("b")].join("\n"));
    assert_eq!((harvest.total(), harvest.missing_unnamed, harvest.succeeded()), (2, 0, 2));
}

proptest! {
    #[test]
    fn an_open_collector_loses_no_row(
        names in prop::collection::vec(0..8u8, 0..20),
        expected in 0..12i64,
        chunk in 1..60usize,
    ) {
        let output: String = names.iter().map(|n| good(&format!("k{n}")) + "\n").collect();
        let mut collector = Collector::open(expected);
        output.as_bytes().chunks(chunk).for_each(|c| collector.push(c));
        let harvest = collector.finish();
        prop_assert_eq!(&harvest, &open(expected, &output));
        let mut distinct: Vec<String> = vec![];
        for name in &names {
            let key = format!("k{name}");
            if !distinct.contains(&key) {
                distinct.push(key);
            }
        }
        let found = i64::try_from(distinct.len()).unwrap();
        prop_assert_eq!(&harvest.keys, &distinct);
        prop_assert_eq!(harvest.rows.len(), distinct.len());
        prop_assert_eq!(harvest.succeeded(), found);
        prop_assert_eq!(harvest.total(), found.max(expected));
    }
}
