//! PURE: what is published. Answers and failures in the order of the harvest, and a manifest that describes them. No
//! clock: the same harvest and facts give the same bytes, so that publishing twice changes nothing.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::rows::{Class, Harvest, Order, Row, RowResult};

/// Version of the manifest's shape.
const SCHEMA_VERSION: i64 = 1;

/// A job at Gemini, as the manifest names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Remote {
    /// `batches/…`
    pub name: String,
    /// Its state, without prefix.
    pub state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub responses_file: Option<String>,
    /// By Gemini's clock, as RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<String>,
}

/// What the manifest says that is not in the harvest. Everything comes from the recorded status, nothing from a clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    pub namespace: String,
    pub batch: String,
    pub uid: String,
    pub model: String,
    pub operation: String,
    /// SHA-256 of the rendered input, in hex.
    pub input_sha256: String,
    pub operator_version: String,
    pub remote: Vec<Remote>,
    /// As RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submitted_time: Option<String>,
}

/// What goes to the sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Publication {
    /// Lines of `results.jsonl`, without line feeds: `{"key":…,"response":…}`, the response byte for byte as Gemini
    /// gave it.
    pub results: Vec<String>,
    /// Lines of `errors.jsonl`, without line feeds: `{"key","request","class","code","error"}`; can be submitted again.
    pub errors: Vec<String>,
    /// The manifest without its `parts` and `results`, which the layout adds.
    pub manifest: Map<String, Value>,
}

#[derive(Serialize)]
struct ResultLine<'a> {
    key: &'a str,
    response: &'a RawValue,
}

#[derive(Serialize)]
struct ErrorLine<'a> {
    key: &'a str,
    /// Absent when the source has changed or gone meanwhile (decisions RO5).
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'a RawValue>,
    class: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    error: ErrorBody<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ErrorBody<'a> {
    message: &'a str,
    /// What was answered all the same: a truncated answer was paid for and may be of use.
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<&'a RawValue>,
}

/// Composes the publication. `requests` are the rows of the source, in the order of the harvest's keys, or `None` when
/// it drifted.
pub fn compose(requests: Option<&[Row]>, harvest: &Harvest, facts: &Facts) -> Publication {
    let (mut results, mut errors) = (Vec::new(), Vec::new());
    for (index, (key, row)) in harvest.keys.iter().zip(&harvest.rows).enumerate() {
        if let (Class::Ok, Some(response)) = (row.class, &row.response) {
            results.push(line(&ResultLine { key, response }));
        } else {
            let request = requests.and_then(|rows| rows.get(index)).filter(|r| r.key == *key);
            errors.push(line(&error_line(key, request, row)));
        }
    }
    Publication { results, errors, manifest: manifest(harvest, facts) }
}

fn error_line<'a>(key: &'a str, request: Option<&'a Row>, row: &'a RowResult) -> ErrorLine<'a> {
    ErrorLine {
        key,
        request: request.map(|r| &*r.request),
        class: row.class.as_str(),
        code: row.code.as_deref(),
        error: ErrorBody {
            message: row.message.as_deref().unwrap_or_default(),
            response: row.response.as_deref(),
        },
    }
}

fn manifest(harvest: &Harvest, facts: &Facts) -> Map<String, Value> {
    let mut manifest = Map::new();
    manifest.insert("schemaVersion".into(), SCHEMA_VERSION.into());
    // Strings and lists of strings only: cannot fail.
    if let Ok(Value::Object(facts)) = serde_json::to_value(facts) {
        manifest.extend(facts);
    }
    manifest.insert("order".into(), harvest.order.as_str().into());
    manifest.insert("inputDrift".into(), (harvest.order == Order::Output).into());
    let by_class: BTreeMap<&str, i64> = harvest.by_class.clone();
    let mut rows = json!({
        "total": harvest.total(),
        "succeeded": harvest.succeeded(),
        "failed": harvest.failed(),
        "byClass": by_class,
    });
    if harvest.missing_unnamed > 0 {
        rows["missingUnnamed"] = harvest.missing_unnamed.into();
    }
    manifest.insert("rows".into(), rows);
    let u = &harvest.usage;
    manifest.insert(
        "usage".into(),
        json!({
            "inputTokens": u.input, "outputTokens": u.output, "thoughtsTokens": u.thoughts,
            "cachedTokens": u.cached, "totalTokens": u.total, "discardedTokens": u.discarded,
        }),
    );
    manifest.insert("modelVersions".into(), json!(harvest.model_versions));
    let bad_lines: Vec<Value> = harvest
        .bad_lines
        .iter()
        .map(|(line, offset)| json!({ "line": line, "byteOffset": offset }))
        .collect();
    manifest.insert(
        "providerOutput".into(),
        json!({
            "lines": harvest.lines,
            "bytes": harvest.bytes,
            "duplicateLines": harvest.duplicate_lines,
            "unknownKeys": { "count": harvest.unknown_keys.count, "sample": harvest.unknown_keys.sample },
            "badLines": { "count": harvest.bad_line_count, "sample": bad_lines },
        }),
    );
    manifest
}

/// One line of JSON Lines. A response was one line of the provider's file, so nothing in it can break the line; a
/// request was made a single line when it was read.
fn line(value: &impl Serialize) -> String {
    // Strings and JSON that was parsed before: cannot fail.
    serde_json::to_string(value).unwrap_or_default()
}
