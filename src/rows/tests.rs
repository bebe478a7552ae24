//! What the row pipeline promises: errors name the place, every key is accounted for once, chunks do not matter.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn keys(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

fn collect(names: &[&str], output: &str) -> Harvest {
    let mut collector = Collector::new(&keys(names));
    collector.push(output.as_bytes());
    collector.finish()
}

fn answer(finish: &str, text: &str) -> Value {
    json!({
        "candidates": [{ "content": { "parts": [{ "text": text }], "role": "model" }, "finishReason": finish }],
        "usageMetadata": { "promptTokenCount": 8, "candidatesTokenCount": 2, "totalTokenCount": 10 },
        "modelVersion": "gemini-3.8-flash",
    })
}

fn verdict(response: &Value) -> Verdict {
    let raw = serde_json::value::to_raw_value(response).unwrap();
    classify(Some(&raw), None)
}

#[test]
fn an_invalid_row_is_named_with_its_line_its_field_and_a_way_out() {
    let good = r#"{"key":"a","request":{"contents":[{"parts":[{"text":"x"}]}]}}"#;
    let table: &[(&str, InputErrorKind, &str)] = &[
        (
            r#"{"request":{"contents":[{"parts":[]}]}}"#,
            InputErrorKind::InvalidRow,
            "row 3: field `key` is missing",
        ),
        (
            r#"{"key":7,"request":{"contents":[{"parts":[]}]}}"#,
            InputErrorKind::InvalidRow,
            "`key` must be a string",
        ),
        (
            r#"{"key":"","request":{"contents":[{"parts":[]}]}}"#,
            InputErrorKind::InvalidRow,
            "has 0 characters",
        ),
        (r#"{"key":"b"}"#, InputErrorKind::InvalidRow, "field `request` is missing"),
        (r#"{"key":"b","request":[]}"#, InputErrorKind::InvalidRow, "`request` must be a JSON object"),
        (r#"{"key":"b","request":{}}"#, InputErrorKind::InvalidRow, "`request.contents` is missing"),
        (r#"{"key":"b","request":{"contents":{}}}"#, InputErrorKind::InvalidRow, "must be an array"),
        (r#"{"key":"b","request":{"contents":[]}}"#, InputErrorKind::InvalidRow, "is empty"),
        (
            r#"{"key":"b","request":{"contents":[{"parts":[]},{"text":"x"}]}}"#,
            InputErrorKind::InvalidRow,
            "`request.contents[1].parts`",
        ),
        (r#"{"key":"b","prompt":"x"}"#, InputErrorKind::InvalidRow, "unknown field \"prompt\""),
        (r#"{"key":"b","key":"c"}"#, InputErrorKind::InvalidRow, "field `key` is there twice"),
        ("[1]", InputErrorKind::InvalidRow, "not a JSON object"),
        ("{\"key\":\"b\"", InputErrorKind::InvalidRow, "at column"),
        (good, InputErrorKind::DuplicateKey, "row 3: key \"a\" was already used by row 1"),
    ];
    for (line, kind, message) in table {
        let error = parse_jsonl(format!("{good}\n\n{line}\n").as_bytes()).unwrap_err();
        assert_eq!((error.kind, error.row), (*kind, Some(3)), "{line}");
        assert!(error.message.contains(message), "{line}: {}", error.message);
    }
}

#[test]
fn a_value_in_the_place_of_a_row_is_not_repeated() {
    let prompt = "Summarize my diary";
    for line in [json!(prompt), json!([prompt]), json!(7), json!({"key": "a", "request": prompt})] {
        let message = parse_jsonl(line.to_string().as_bytes()).unwrap_err().message;
        assert!(message.starts_with("row 1: ") && !message.contains("diary"), "{message}");
    }
    let text = parse_jsonl(b"\"Summarize my diary\"").unwrap_err().message;
    assert!(text.contains("not a JSON object (another kind of value at column"), "{text}");
    // What is no JSON at all is still told with its cause.
    let cut = parse_jsonl(br#"{"key":"a""#).unwrap_err().message;
    assert!(cut.contains("EOF while parsing an object at column 10"), "{cut}");
}

#[test]
fn limits_and_emptiness() {
    assert_eq!(parse_jsonl(b" \n\r\n").unwrap_err().kind, InputErrorKind::Empty);
    assert_eq!(from_requests(&[]).unwrap_err().kind, InputErrorKind::Empty);
    let row = |key: &str| format!("{{\"key\":\"{key}\",\"request\":{{\"contents\":[{{\"parts\":[]}}]}}}}");
    assert!(parse_jsonl(row(&"ä".repeat(256)).as_bytes()).is_ok());
    assert!(parse_jsonl(row(&"a".repeat(257)).as_bytes()).is_err());
    let huge = row(&"a".repeat(MAX_ROW_BYTES));
    assert_eq!(parse_jsonl(huge.as_bytes()).unwrap_err().kind, InputErrorKind::TooLarge);
    assert!(parse_jsonl(b"{\"key\":\"\xff\"}").unwrap_err().message.contains("not UTF-8 at byte 9"));
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_do_no_harm() {
    let text = "\u{feff}{\"key\":\"a\",\"request\":{\"contents\":[{\"parts\":[]}]}}\r\n\r\n";
    assert_eq!(parse_jsonl(text.as_bytes()).unwrap().len(), 1);
}

#[test]
fn errors_jsonl_can_be_submitted_as_it_is() {
    let line = r#"{"key":"a","request":{"contents":[{"parts":[]}]},"class":"Transient","code":"13","error":{"message":"m"}}"#;
    let rows = parse_jsonl(line.as_bytes()).unwrap();
    let rendered = render(&rows).unwrap();
    assert_eq!(
        String::from_utf8(rendered.bytes).unwrap(),
        "{\"key\":\"a\",\"request\":{\"contents\":[{\"parts\":[]}]}}\n"
    );
}

#[test]
fn inline_requests_become_generate_content_requests() {
    let requests = [InlineRequest {
        key: "t-1".into(),
        prompt: "Say \"hi\"\n".into(),
        system: Some("Be short.".into()),
        generation_config: json!({ "temperature": 0.2, "maxOutputTokens": 64 }).as_object().cloned(),
    }];
    let rows = from_requests(&requests).unwrap();
    let value: Value = serde_json::from_str(rows[0].request.get()).unwrap();
    assert_eq!(
        value,
        json!({
            "contents": [{ "role": "user", "parts": [{ "text": "Say \"hi\"\n" }] }],
            "systemInstruction": { "parts": [{ "text": "Be short." }] },
            "generationConfig": { "temperature": 0.2, "maxOutputTokens": 64 },
        })
    );
    // What we make ourselves passes our own check.
    let rendered = render(&rows).unwrap();
    assert_eq!(parse_jsonl(&rendered.bytes).unwrap(), rows);
    assert_eq!(estimate_result_bytes(&rows), 3 + 4 * 64);
}

#[test]
fn the_estimate_takes_a_kibibyte_where_nothing_limits_the_answer() {
    let row =
        |request: &str| format!("{{\"key\":\"k\",\"request\":{{\"contents\":[{{\"parts\":[]}}]{request}}}}}");
    for (request, expected) in [
        ("", 1 + 1024),
        (r#","generationConfig":{"maxOutputTokens":10}"#, 1 + 40),
        (r#","generation_config":{"max_output_tokens":"10"}"#, 1 + 40),
        (r#","generationConfig":{"maxOutputTokens":null}"#, 1 + 1024),
        (r#","generationConfig":7"#, 1 + 1024),
        (r#","generationConfig":{"maxOutputTokens":18446744073709551615}"#, u64::MAX),
    ] {
        assert_eq!(
            estimate_result_bytes(&parse_jsonl(row(request).as_bytes()).unwrap()),
            expected,
            "{request}"
        );
    }
}

#[test]
fn classes_of_answers() {
    let with = |patch: &Value| {
        let mut response = answer("STOP", "hi");
        for (name, value) in patch.as_object().unwrap() {
            response["candidates"][0][name] = value.clone();
        }
        response
    };
    let parts = |parts: &Value| with(&json!({ "content": { "parts": parts } }));
    let table = [
        (answer("STOP", "hi"), Class::Ok, None),
        (answer("MAX_TOKENS", "hi"), Class::Truncated, Some("MAX_TOKENS")),
        (answer("SAFETY", ""), Class::Blocked, Some("SAFETY")),
        (answer("RECITATION", "x"), Class::Blocked, Some("RECITATION")),
        (answer("IMAGE_SAFETY", "x"), Class::Blocked, Some("IMAGE_SAFETY")),
        (answer("MALFORMED_FUNCTION_CALL", ""), Class::Invalid, Some("MALFORMED_FUNCTION_CALL")),
        (answer("OF_TOMORROW", "x"), Class::Invalid, Some("OF_TOMORROW")),
        (answer("STOP", ""), Class::Empty, Some("STOP")),
        (with(&json!({ "finishReason": null })), Class::Invalid, Some("FINISH_REASON_UNSPECIFIED")),
        (with(&json!({ "content": null })), Class::Empty, Some("STOP")),
        (parts(&json!([])), Class::Empty, Some("STOP")),
        (parts(&json!([{ "text": "let me think", "thought": true }])), Class::Empty, Some("STOP")),
        (parts(&json!([{ "text": "x", "thought": true }, { "text": "hi" }])), Class::Ok, None),
        (parts(&json!([{ "functionCall": { "name": "f" } }])), Class::Ok, None),
        (parts(&json!([{ "thoughtSignature": "x" }])), Class::Empty, Some("STOP")),
        (json!({ "promptFeedback": { "blockReason": "SAFETY" } }), Class::Blocked, Some("SAFETY")),
        (json!({ "candidates": [], "promptFeedback": {} }), Class::Empty, None),
        (json!({}), Class::Empty, None),
        (json!({ "candidates": 7 }), Class::BadJson, None),
        (json!("text"), Class::BadJson, None),
    ];
    for (response, class, code) in table {
        let verdict = verdict(&response);
        assert_eq!((verdict.class, verdict.code.as_deref()), (class, code), "{response}");
        assert_eq!(verdict.message.is_none(), class == Class::Ok, "{response}");
        assert_eq!(verdict.response.unwrap().get(), response.to_string());
    }
}

#[test]
fn classes_of_errors() {
    let table = [
        (r#"{"code":13,"message":"Internal error encountered."}"#, Class::Transient, Some("13")),
        (r#"{"code":1}"#, Class::Transient, Some("1")),
        (r#"{"code":"UNAVAILABLE"}"#, Class::Transient, Some("UNAVAILABLE")),
        (r#"{"code":"429"}"#, Class::Transient, Some("429")),
        (r#"{"code":503}"#, Class::Transient, Some("503")),
        (r#"{"code":3,"message":"bad"}"#, Class::Invalid, Some("3")),
        (r#"{"code":400}"#, Class::Invalid, Some("400")),
        (r#"{"status":"INTERNAL"}"#, Class::Transient, Some("INTERNAL")),
        (r#"{"message":"?"}"#, Class::Invalid, None),
        (r#""text""#, Class::Invalid, None),
        (r#"{"code":{"a":1}}"#, Class::Invalid, None),
    ];
    for (error, class, code) in table {
        let raw: Box<serde_json::value::RawValue> = serde_json::from_str(error).unwrap();
        let verdict = classify(None, Some(&raw));
        assert_eq!((verdict.class, verdict.code.as_deref()), (class, code), "{error}");
        assert!(verdict.message.is_some());
    }
}

#[test]
fn tokens_are_counted_once_for_delivered_rows_and_discarded_for_the_others() {
    let ok = json!({ "key": "a", "response": {
        "candidates": [{ "content": { "parts": [{ "text": "x" }] }, "finishReason": "STOP" }],
        "usageMetadata": { "promptTokenCount": "5", "candidatesTokenCount": 7, "thoughtsTokenCount": 3,
                           "cachedContentTokenCount": 2, "totalTokenCount": "15" },
        "modelVersion": "v1" } });
    let cut = json!({ "key": "b", "response": answer("MAX_TOKENS", "x") });
    let harvest = collect(&["a", "b", "c"], &format!("{ok}\n{cut}\n{ok}\n"));
    assert_eq!(
        harvest.usage,
        Usage { input: 5, output: 7, thoughts: 3, cached: 2, total: 15, discarded: 10 + 15 }
    );
    assert_eq!((harvest.succeeded(), harvest.failed(), harvest.duplicate_lines), (1, 2, 1));
    assert_eq!(
        harvest.by_class.into_iter().collect::<Vec<_>>(),
        [("Missing", 1), ("OK", 1), ("Truncated", 1)]
    );
    assert_eq!(
        harvest.model_versions.into_iter().collect::<Vec<_>>(),
        [("gemini-3.8-flash".to_owned(), 1), ("v1".to_owned(), 2)]
    );
}

#[test]
fn several_lines_for_a_key_give_one_class() {
    let ok = json!({ "key": "a", "response": answer("STOP", "first") }).to_string();
    let ok2 = json!({ "key": "a", "response": answer("STOP", "second") }).to_string();
    let failed = r#"{"key":"a","error":{"code":13}}"#;
    let refused = r#"{"error":{"code":3},"key":"a"}"#;
    let class = |lines: &[&str]| collect(&["a"], &lines.join("\n")).rows.remove(0);
    assert_eq!(class(&[&ok, &ok2]).response.unwrap().get(), answer("STOP", "first").to_string());
    assert_eq!(class(&[failed, &ok, refused]).class, Class::Ok);
    assert_eq!(class(&[failed, failed]).class, Class::Transient);
    assert_eq!(class(&[failed, refused]).class, Class::Duplicate);
    assert_eq!(class(&[failed, refused, &ok]).class, Class::Ok);
    assert_eq!(class(&[failed, refused, failed]).class, Class::Duplicate);
}

#[test]
fn what_cannot_be_read_is_counted_and_named_by_place() {
    let ok = json!({ "key": "a", "response": answer("STOP", "x") }).to_string();
    let output = format!(
        "{ok}\nnot json\n\n{{\"key\": \"b\", \"resp\n{{\"key\":\"zzz\",\"error\":{{\"code\":1}}}}\n{{}}\n"
    );
    let harvest = collect(&["a", "b", "c"], &output);
    let first_bad = ok.len() as u64 + 1;
    assert_eq!(harvest.bad_lines, [(2, first_bad), (4, first_bad + 10), (6, output.len() as u64 - 3)]);
    assert_eq!(harvest.bad_line_count, 3);
    assert_eq!(harvest.unknown_keys, Unknown { count: 1, sample: vec!["zzz".into()] });
    let classes: Vec<Class> = harvest.rows.iter().map(|r| r.class).collect();
    assert_eq!(classes, [Class::Ok, Class::BadJson, Class::Missing]);
    assert_eq!((harvest.lines, harvest.bytes), (5, output.len() as u64));
}

#[test]
fn a_download_that_ends_inside_a_line_shows_the_row_as_bad_not_as_good() {
    let ok = json!({ "key": "a", "response": answer("STOP", "x") }).to_string();
    for cut in 1..ok.len() {
        let harvest = collect(&["a"], &ok[..cut]);
        assert_ne!(harvest.rows[0].class, Class::Ok, "cut at {cut}");
        assert_eq!(harvest.bad_line_count, 1);
    }
    assert_eq!(collect(&["a"], &ok).rows[0].class, Class::Ok);
}

#[test]
fn a_line_over_the_limit_costs_its_own_row_only() {
    let ok = |key: &str, text: &str| json!({ "key": key, "response": answer("STOP", text) }).to_string();
    let output = format!("{}\n{}\n", ok("a", &"x".repeat(5000)), ok("b", "y"));
    for chunk in [1, 100, 4096, output.len()] {
        let mut collector = Collector::with_max_line(&keys(&["a", "b"]), 1000);
        output.as_bytes().chunks(chunk).for_each(|c| collector.push(c));
        let harvest = collector.finish();
        assert_eq!([harvest.rows[0].class, harvest.rows[1].class], [Class::BadJson, Class::Ok], "{chunk}");
        assert_eq!(harvest.bad_lines, [(1, 0)]);
    }
}

#[test]
fn line_separators_of_unicode_do_not_split_lines() {
    let line = json!({ "key": "a", "response": answer("STOP", "one\u{2028}two\u{0085}three") }).to_string();
    assert_eq!(collect(&["a"], &format!("{line}\r\n")).rows[0].class, Class::Ok);
}

#[test]
fn the_key_may_stand_in_the_metadata() {
    let line = json!({ "metadata": { "key": "a" }, "response": answer("STOP", "x") }).to_string();
    assert_eq!(collect(&["a"], &line).rows[0].class, Class::Ok);
}

#[test]
fn summaries_group_by_cause_and_put_the_most_frequent_first() {
    let names: Vec<String> = (0..9).map(|i| format!("k{i}")).collect();
    let mut output = String::new();
    for (i, key) in names.iter().enumerate().take(8) {
        let code = if i < 3 { 13 } else { 3 };
        output = format!(
            "{output}{}\n",
            json!({ "key": key, "error": { "code": code, "message": "ä".repeat(300) } })
        );
    }
    let mut collector = Collector::new(&names);
    collector.push(output.as_bytes());
    let summaries = collector.finish().summaries();
    let short: Vec<_> =
        summaries.iter().map(|s| (s.class, s.code.as_deref(), s.count, s.sample_key.as_str())).collect();
    assert_eq!(
        short,
        [
            (Class::Invalid, Some("3"), 5, "k3"),
            (Class::Transient, Some("13"), 3, "k0"),
            (Class::Missing, None, 1, "k8")
        ]
    );
    assert!(summaries.iter().all(|s| s.message.len() <= 256));
}

/// Lines of an output: good ones, failed ones, broken ones, for few keys, so that they meet.
fn output_line() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec!["a", "b", "c", "d", "stranger"]);
    prop_oneof![
        (key.clone(), "[a-z\\n\"\u{2028}]{0,8}")
            .prop_map(|(k, t)| json!({ "key": k, "response": answer("STOP", &t) }).to_string()),
        (key.clone(), 0..20).prop_map(|(k, c)| json!({ "key": k, "error": { "code": c } }).to_string()),
        key.prop_map(|k| format!("{{\"key\":\"{k}\",\"resp")),
        "[ -~]{0,12}",
        Just(String::new()),
    ]
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_harvest(
        lines in prop::collection::vec(output_line(), 0..12),
        cuts in prop::collection::vec(0_usize..2000, 0..10),
        ends_well in any::<bool>(),
    ) {
        let mut output = lines.join("\n");
        if ends_well {
            output.push('\n');
        }
        let names = ["a", "b", "c", "d"];
        let whole = collect(&names, &output);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c % (output.len() + 1)).collect();
        cuts.sort_unstable();
        let mut collector = Collector::new(&keys(&names));
        let mut start = 0;
        for cut in cuts.into_iter().chain([output.len()]) {
            collector.push(&output.as_bytes()[start..cut]);
            start = cut;
        }
        prop_assert_eq!(collector.finish(), whole);
    }

    #[test]
    fn every_key_is_accounted_for_exactly_once(lines in prop::collection::vec(output_line(), 0..20)) {
        let harvest = collect(&["a", "b", "c", "d"], &lines.join("\n"));
        prop_assert_eq!(harvest.rows.len(), 4);
        prop_assert_eq!(harvest.by_class.values().sum::<i64>(), 4);
        prop_assert_eq!(harvest.succeeded() + harvest.failed(), 4);
        let counted = harvest.rows.iter().filter(|r| r.class != Class::Missing).count();
        let told = harvest.lines - harvest.bad_line_count - harvest.unknown_keys.count - harvest.duplicate_lines;
        // A bad line whose key could be recovered counts for its row too, so this is a lower bound.
        prop_assert!(i64::try_from(counted).unwrap() >= told);
    }

    #[test]
    fn garbage_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse_jsonl(&bytes);
        let mut collector = Collector::new(&keys(&["a"]));
        collector.push(&bytes);
        prop_assert_eq!(collector.finish().rows.len(), 1);
    }

    #[test]
    fn rendering_is_deterministic_and_reads_back(
        prompts in prop::collection::btree_map("[ -~äß\u{2028}]{1,20}", "\\PC{1,40}", 1..10)
    ) {
        let requests: Vec<InlineRequest> = prompts
            .into_iter()
            .map(|(key, prompt)| InlineRequest { key, prompt, ..InlineRequest::default() })
            .collect();
        let rows = from_requests(&requests).unwrap();
        let rendered = render(&rows).unwrap();
        prop_assert_eq!(&rendered, &render(&rows).unwrap());
        let back = parse_jsonl(&rendered.bytes).unwrap();
        prop_assert_eq!(&back, &rows);
        prop_assert_eq!(render(&back).unwrap().sha256, rendered.sha256);
    }
}
