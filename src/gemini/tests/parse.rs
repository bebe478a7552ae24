//! What answers look like: three forms of errors, and operations as they were captured.

use serde_json::{Value, json};

use super::*;

#[test]
fn errors_in_all_forms() {
    let help = json!({ "error": { "code": 429, "message": "You exceeded your current quota.", "status": "RESOURCE_EXHAUSTED",
        "details": [{ "@type": "type.googleapis.com/google.rpc.Help", "links": [] }] } });
    let key = json!({ "error": { "code": 400, "message": "API key not valid. Please pass a valid API key.",
        "status": "INVALID_ARGUMENT",
        "details": [{ "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID" }] } });
    let wait = json!({ "error": { "code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED",
        "details": [{ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "37.5s" }] } });
    let text_code = json!({ "error": { "message": "Invalid enum value 'x'", "code": "invalid_request" } });
    let only_code = json!({ "error": { "code": "not_found" } });
    let other_code = json!({ "error": { "code": 500, "message": "m", "status": "INTERNAL" } });
    let table: [(u16, String, bool, Option<&str>, &str); 12] = [
        (429, help.to_string(), true, None, "You exceeded your current quota."),
        (
            400,
            key.to_string(),
            true,
            Some("API_KEY_INVALID"),
            "API key not valid. Please pass a valid API key.",
        ),
        (
            400,
            json!([key]).to_string(),
            true,
            Some("API_KEY_INVALID"),
            "API key not valid. Please pass a valid API key.",
        ),
        (429, wait.to_string(), true, None, "m"),
        (400, text_code.to_string(), false, None, "Invalid enum value 'x'"),
        (404, only_code.to_string(), false, None, "HTTP 404: not_found"),
        // A Status that contradicts its HTTP status did not come from the API in one piece.
        (400, other_code.to_string(), false, None, "m"),
        (
            503,
            "<html>Service Unavailable</html>".into(),
            false,
            None,
            "HTTP 503 from a front end, not from the API",
        ),
        (502, String::new(), false, None, "HTTP 502 with an empty body"),
        (502, "upstream\nfailed".into(), false, None, "HTTP 502: upstream failed"),
        (500, "{\"error\":\"x\"}".into(), false, None, "HTTP 500 from a front end, not from the API"),
        (500, "{\"error\":{}}".into(), false, None, "HTTP 500 without a message"),
    ];
    for (status, body, is_google_rpc, reason, message) in table {
        let parsed = parse_error(status, body.as_bytes());
        assert_eq!(
            (parsed.is_google_rpc, parsed.reason.as_deref(), parsed.message.as_str()),
            (is_google_rpc, reason, message),
            "{body}"
        );
    }
    assert_eq!(
        parse_error(429, wait.to_string().as_bytes()).retry_delay,
        Some(Duration::from_millis(37_500))
    );
    let long = json!({ "error": { "code": 400, "message": "ä".repeat(600), "status": "INVALID_ARGUMENT" } });
    assert!(parse_error(400, long.to_string().as_bytes()).message.len() <= 512);
}

fn captured(state: &str) -> Value {
    json!({
        "name": "batches/3a96ht58d9rd",
        "metadata": {
            "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
            "model": "models/gemini-3.8-flash", "displayName": "job-1",
            "inputConfig": { "fileName": "files/voe5u4gdj968" },
            "createTime": "2026-08-20T20:08:31.015405218Z", "endTime": "2026-08-20T20:10:25.852081585Z",
            "batchStats": { "requestCount": "9", "successfulRequestCount": "8", "failedRequestCount": 1 },
            "state": state,
        },
    })
}

fn parsed(value: &Value) -> Batch {
    parse_operation(value.to_string().as_bytes()).unwrap()
}

#[test]
fn an_operation_as_it_was_captured() {
    let mut operation = captured("BATCH_STATE_SUCCEEDED");
    operation["done"] = true.into();
    operation["metadata"]["output"] = json!({ "responsesFile": "files/batch-3a96" });
    operation["response"] = json!({ "responsesFile": "files/other" });
    let batch = parsed(&operation);
    assert_eq!((batch.name.as_str(), batch.display_name.as_str()), ("batches/3a96ht58d9rd", "job-1"));
    assert_eq!((&batch.state, batch.raw_state.as_str()), (&State::Succeeded, "BATCH_STATE_SUCCEEDED"));
    assert_eq!(batch.responses_file.as_deref(), Some("files/batch-3a96"));
    assert_eq!(batch.input_file.as_deref(), Some("files/voe5u4gdj968"));
    assert_eq!(batch.stats, BatchStats { request: 9, successful: 8, failed: 1, pending: 0 });
    assert_eq!(batch.create_time.unwrap().to_string(), "2026-08-20T20:08:31.015405218Z");
    assert!(!batch.inlined && batch.is_terminal());

    operation["metadata"].as_object_mut().unwrap().remove("output");
    assert_eq!(parsed(&operation).responses_file.as_deref(), Some("files/other"));
}

#[test]
fn states_in_both_spellings_and_of_tomorrow() {
    for (raw, done, state) in [
        ("BATCH_STATE_PENDING", false, State::Pending),
        ("JOB_STATE_RUNNING", false, State::Running),
        ("BATCH_STATE_CANCELLED", true, State::Cancelled),
        ("BATCH_STATE_EXPIRED", false, State::Expired),
        ("BATCH_STATE_PAUSED", false, State::Unknown("PAUSED".into())),
        // The operation's own end outranks a word that we do not know.
        ("BATCH_STATE_PAUSED", true, State::Succeeded),
        ("BATCH_STATE_RUNNING", true, State::Succeeded),
    ] {
        let mut operation = captured(raw);
        operation["done"] = done.into();
        assert_eq!(parsed(&operation).state, state, "{raw} {done}");
    }
    let mut failed = captured("BATCH_STATE_UNHEARD_OF");
    failed["done"] = true.into();
    failed["error"] = json!({ "code": "8", "message": "quota", "details": [{ "reason": "X" }] });
    let failed = parsed(&failed);
    assert_eq!((failed.state, failed.error), (State::Failed, Some(("8".into(), "quota".into()))));
}

#[test]
fn what_a_job_says_that_lost_its_input() {
    type Change = fn(&mut Value);
    let code_and_text = |code: i32, message: &str| json!({ "code": code, "message": message });
    let gone = || {
        code_and_text(7, "You do not have permission to access the File voe5u4gdj968 or it may not exist.")
    };
    let failed = |error: Value| {
        let mut operation = captured("BATCH_STATE_FAILED");
        operation["done"] = true.into();
        operation["error"] = error;
        operation["metadata"]["batchStats"] = json!({ "requestCount": "9", "pendingRequestCount": "9" });
        operation
    };
    assert!(parsed(&failed(gone())).lost_input());
    assert!(parsed(&failed(code_and_text(5, "File not found: files/voe5u4gdj968"))).lost_input());

    for (what, error) in [
        ("another thing is not there", code_and_text(5, "models/gemini-0.1 is not found")),
        ("another file", code_and_text(7, "You do not have permission to access the File abc")),
        ("the file is there, and bad", code_and_text(3, "File voe5u4gdj968 is not JSON lines")),
    ] {
        assert!(!parsed(&failed(error)).lost_input(), "{what}");
    }
    let changes: [(&str, Change); 5] = [
        ("it ran a row", |o| o["metadata"]["batchStats"]["successfulRequestCount"] = "1".into()),
        ("it has answers", |o| o["metadata"]["output"] = json!({ "responsesFile": "files/batch-3a96" })),
        ("it did not fail", |o| o["metadata"]["state"] = "BATCH_STATE_CANCELLED".into()),
        ("its file is not told", |o| {
            o["metadata"].as_object_mut().unwrap().remove("inputConfig");
        }),
        ("its file has no name", |o| o["metadata"]["inputConfig"]["fileName"] = "files/".into()),
    ];
    for (what, change) in changes {
        let mut operation = failed(gone());
        change(&mut operation);
        assert!(!parsed(&operation).lost_input(), "{what}");
    }
}

#[test]
fn odd_operations() {
    let bare = parsed(&json!({ "name": "batches/x" }));
    assert_eq!(bare.state, State::Unknown(String::new()));
    let flat = parsed(&json!({ "name": "batches/x", "state": "BATCH_STATE_SUCCEEDED", "displayName": "flat",
                               "output": { "responsesFile": "files/r" } }));
    assert_eq!((flat.state, flat.display_name.as_str()), (State::Succeeded, "flat"));
    assert_eq!(flat.responses_file.as_deref(), Some("files/r"));
    let inline = parsed(&json!({ "name": "batches/x", "metadata": { "output": {
        "inlinedResponses": { "inlinedResponses": [{ "error": { "code": 1 } }] } } } }));
    assert!(inline.inlined && inline.responses_file.is_none());
    for bad in [
        "",
        "[]",
        "{}",
        r#"{"name":"operations/x"}"#,
        r#"{"name":"batches/../x"}"#,
        r#"{"name":"batches/X"}"#,
        "<html>",
    ] {
        assert!(parse_operation(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn settings_are_checked() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let new = |base: &str, version: &str, ca: Option<&[u8]>| {
        Gemini::new(&Settings {
            base_url: base.into(),
            api_version: version.into(),
            extra_ca_pem: ca.map(<[u8]>::to_vec),
        })
    };
    for base in [
        "https://generativelanguage.googleapis.com",
        "http://127.0.0.1:1",
        "http://[::1]:1",
        "http://localhost:1/",
    ] {
        assert!(new(base, "v1beta", None).is_ok(), "{base}");
    }
    for base in [
        "",
        "http://example.com",
        "ftp://localhost",
        "https://u:p@h",
        "https://h/path",
        "https://h/?key=1",
        "h",
    ] {
        assert!(new(base, "v1beta", None).is_err(), "{base}");
    }
    assert!(new("https://h", "v1/../x", None).is_err());
    assert!(new("https://h", "", None).is_err());
    assert!(new("https://h", "v1", Some(b"no certificate")).is_err());
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    assert!(new("https://h", "v1", Some(own.cert.pem().as_bytes())).is_ok());
}
