//! I7: results are in the sink iff the status says so, and whole.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::read::{condition, is_final, text};
use crate::{Case, Report};

const BATCH: &str = "gemini-operator.io/batch";

pub fn check(case: &Case<'_>, report: &mut Report) {
    let sinks = sinks(&case.evidence.objects);
    for object in case.evidence.objects.iter().filter(|object| object["kind"] == "GeminiBatch") {
        let metadata = &object["metadata"];
        let (namespace, name) = (text(metadata, "namespace"), text(metadata, "name"));
        if case.bounds.sinks_changed.iter().any(|changed| changed == name) {
            continue;
        }
        let sink = Sink::read(sinks.get(&(namespace, name)).map_or(&[][..], Vec::as_slice));
        let status = &object["status"];
        let found = match status.get("output").filter(|output| !output.is_null()) {
            Some(output) => delivered(status, output, &sink),
            None => undelivered(status, text(metadata, "uid"), &sink),
        };
        for text in found {
            report.add("I7", format!("{namespace}/{name}"), text);
        }
    }
}

/// ConfigMaps by the namespace and the name of their batch.
fn sinks(objects: &[Value]) -> BTreeMap<(&str, &str), Vec<&Value>> {
    let mut sinks: BTreeMap<(&str, &str), Vec<&Value>> = BTreeMap::new();
    for map in objects.iter().filter(|object| object["kind"] == "ConfigMap") {
        let metadata = &map["metadata"];
        let place = (text(metadata, "namespace"), text(&metadata["annotations"], BATCH));
        sinks.entry(place).or_default().push(map);
    }
    sinks
}

/// The documents of a batch, put together.
struct Sink {
    maps: Vec<String>,
    results: String,
    errors: String,
    manifest: String,
}

impl Sink {
    fn read(maps: &[&Value]) -> Self {
        let mut maps = maps.to_vec();
        // NAME, NAME-1, … NAME-10: the shorter first.
        maps.sort_by_key(|map| (text(&map["metadata"], "name").len(), text(&map["metadata"], "name")));
        let joined = |key: &str| maps.iter().map(|map| text(&map["data"], key)).collect::<String>();
        Self {
            results: joined("results.jsonl"),
            errors: joined("errors.jsonl"),
            manifest: joined("manifest.json"),
            maps: maps.iter().map(|map| text(&map["metadata"], "name").to_owned()).collect(),
        }
    }
}

pub fn digest(text: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes()))
}

fn delivered(status: &Value, output: &Value, sink: &Sink) -> Vec<String> {
    let mut found = vec![];
    let digest = digest(&sink.results);
    if digest != text(output, "sha256") {
        let told = text(output, "sha256");
        found.push(format!("status.output says SHA-256 {told}, the sink {:?} holds {digest}", sink.maps));
    }
    let lines = sink.results.lines().count() as u64;
    let counted = (output["lines"].as_u64(), output["bytes"].as_u64());
    if counted != (Some(lines), Some(sink.results.len() as u64)) {
        found.push(format!(
            "status.output says {} lines, {} bytes; the sink holds {lines} and {}",
            output["lines"],
            output["bytes"],
            sink.results.len()
        ));
    }
    // Where the input is not known any more, rows without an answer cannot be named.
    let drifted = condition(status, "InputReady").is_some_and(|(_, reason)| reason == "InputDrift");
    let rejects = sink.errors.lines().count() as u64;
    let requests = status["input"]["rows"].as_u64();
    if !drifted && requests != Some(lines + rejects) {
        found.push(format!("{lines} results and {rejects} errors for {requests:?} requests"));
    }
    found
}

fn undelivered(status: &Value, uid: &str, sink: &Sink) -> Vec<String> {
    let manifest: Value = serde_json::from_str(&sink.manifest).unwrap_or_default();
    let is_this_ones = manifest.to_string().contains(uid);
    if is_final(status) && !sink.manifest.is_empty() && is_this_ones {
        return vec![format!(
            "it has ended without status.output, and the sink {:?} holds its results",
            sink.maps
        )];
    }
    vec![]
}
