//! The batches: what they ask, and what must come back.

use futures::StreamExt as _;
use gemini_operator::api::{BATCH_ANNOTATION, GeminiBatch};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, PostParams};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::Room;
use crate::support::cluster::from_json;

const SIDE_BY_SIDE: usize = 16;

fn name(number: usize) -> String {
    format!("storm-{number}")
}

fn prompt(seed: u64, number: usize, row: usize) -> String {
    format!("Storm {seed}, batch {number}, row {row}")
}

fn batch(seed: u64, number: usize, rows: usize) -> GeminiBatch {
    let request = |row| json!({"key": format!("row-{row}"), "prompt": prompt(seed, number, row)});
    let requests: Vec<Value> = (0..rows).map(request).collect();
    from_json(json!({
        "apiVersion": "gemini-operator.io/v1alpha1",
        "kind": "GeminiBatch",
        "metadata": {"name": name(number)},
        "spec": {
            "apiKeySecretRef": {"name": "gemini"},
            "model": "gemini-3.5-flash",
            "input": {"inline": {"requests": requests}},
        },
    }))
}

/// Makes these batches: `(number, rows)`.
pub async fn submit(api: Api<GeminiBatch>, seed: u64, batches: Vec<(usize, usize)>) {
    let make = |(number, rows)| {
        let api = api.clone();
        async move {
            let made = api.create(&PostParams::default(), &batch(seed, number, rows)).await;
            made.unwrap_or_else(|error| panic!("{}: {error}", name(number)));
        }
    };
    futures::stream::iter(batches).for_each_concurrent(SIDE_BY_SIDE, make).await;
}

/// What is wrong with the results of these batches, and how many are right.
pub async fn results(room: &Room, seed: u64, rows: &[usize]) -> (Vec<String>, usize) {
    let maps = room.config_maps().list(&ListParams::default()).await.expect("ConfigMaps can be listed").items;
    let batches = room.batches().list(&ListParams::default()).await.expect("batches can be listed").items;
    let (mut wrong, mut right) = (vec![], 0);
    for (number, rows) in rows.iter().enumerate() {
        let batch = batches.iter().find(|batch| batch.name_any() == name(number));
        match batch.ok_or("it is gone".into()).and_then(|batch| judge(batch, &maps, seed, number, *rows)) {
            Ok(()) => right += 1,
            Err(problem) => wrong.push(format!("{}: {problem}", name(number))),
        }
    }
    (wrong, right)
}

fn judge(
    batch: &GeminiBatch,
    maps: &[ConfigMap],
    seed: u64,
    number: usize,
    rows: usize,
) -> Result<(), String> {
    let output = batch.status.as_ref().and_then(|status| status.output.as_ref());
    let told = &output.ok_or("it has no results")?.sha256;
    let mut its: Vec<&ConfigMap> = maps
        .iter()
        .filter(|map| map.annotations().get(BATCH_ANNOTATION).is_some_and(|its| *its == name(number)))
        .collect();
    its.sort_by_key(|map| (map.name_any().len(), map.name_any()));
    let parts = its.iter().filter_map(|map| map.data.as_ref()?.get("results.jsonl"));
    let document: String = parts.map(String::as_str).collect();
    let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(document.as_bytes()));
    if digest != *told {
        return Err(format!("status.output says SHA-256 {told}, its ConfigMaps hold {digest}"));
    }
    let lines: Vec<Value> =
        document.lines().map(|line| serde_json::from_str(line).unwrap_or(Value::Null)).collect();
    let expected: Vec<Value> = (0..rows)
        .map(|row| json!({"key": format!("row-{row}"), "response": answer(&prompt(seed, number, row))}))
        .collect();
    if lines == expected { Ok(()) } else { Err(format!("expected {expected:?}, got {lines:?}")) }
}

/// What the emulator answers to the rendered request of this prompt.
fn answer(prompt: &str) -> Value {
    let request = json!({"contents": [{"role": "user", "parts": [{"text": prompt}]}]});
    let mut answer = gemini_emulator::rows::answer(&request);
    // Which model answers is not a property of the request.
    answer["modelVersion"] = json!("gemini-3.5-flash");
    answer
}
