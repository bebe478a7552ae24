//! What a person sees of the custom resources through kubectl.

use std::fs;

use serde_json::{Value, json};

use super::{Applicant, good_batch, good_webhook};
use crate::support::cluster::cluster;
use crate::support::tools;

/// A namespace with one batch and one webhook, both with a status.
async fn populated() -> String {
    let cluster = cluster().await;
    let namespace = Applicant::batch().await.namespace;
    let kubectl = cluster.kubectl(&namespace);
    for (object, resource, status) in [
        (
            good_batch(),
            "geminibatch",
            json!({
                "phase": "Succeeded", "progress": "2/2", "completionTime": "2026-11-23T10:00:00Z",
                "rows": {"total": 2, "succeeded": 2, "failed": 0, "pending": 0},
                "usage": {"inputTokens": 1, "outputTokens": 2, "thoughtsTokens": 0, "cachedTokens": 0,
                          "totalTokens": 412, "discardedTokens": 0},
                "conditions": [
                    condition("Admitted", "True", "Admitted"),
                    condition("Complete", "True", "PartiallySucceeded"),
                    condition("Reconciling", "False", "PartiallySucceeded"),
                ],
            }),
        ),
        (
            good_webhook(),
            "geminiwebhook",
            json!({
                "state": "enabled", "id": "abc",
                "conditions": [
                    condition("Ready", "True", "Ready"),
                    condition("EndpointReachable", "True", "PingVerified"),
                ],
            }),
        ),
    ] {
        kubectl.apply(&object.to_string()).await.expect();
        let patch = json!({ "status": status }).to_string();
        let patch = ["patch", resource, "good", "--subresource=status", "--type=merge", "-p", &patch];
        kubectl.run(&patch).await.expect();
    }
    namespace
}

fn condition(type_: &str, status: &str, reason: &str) -> Value {
    json!({
        "type": type_, "status": status, "reason": reason, "message": "",
        "lastTransitionTime": "2026-11-23T10:00:00Z",
    })
}

/// The table as rows of columns.
fn table(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

#[tokio::test]
async fn columns_say_what_matters() {
    let cluster = cluster().await;
    let namespace = populated().await;
    let kubectl = cluster.kubectl(&namespace);

    let shown = kubectl.run(&["get", "gb"]).await.expect();
    let rows = table(&shown);
    assert_eq!(rows[0], ["NAME", "MODEL", "STATUS", "ROWS", "FAILED", "TOKENS", "AGE"]);
    assert_eq!(rows[1][..6], ["good", "gemini-3.5-flash", "Succeeded", "2/2", "0", "412"]);
    let shown = kubectl.run(&["get", "gb", "-o", "wide"]).await.expect();
    let rows = table(&shown);
    assert_eq!(rows[0][7..], ["REMOTE", "OUTPUT", "REASON", "COMPLETED"]);
    // There is neither a remote job nor an output here.
    assert_eq!(rows[1][7], "PartiallySucceeded", "the reason of the end, not of a step on the way: {shown}");

    let shown = kubectl.run(&["get", "gwh"]).await.expect();
    let rows = table(&shown);
    assert_eq!(rows[0], ["NAME", "URL", "STATE", "READY", "REACHABLE", "LAST-EVENT", "AGE"]);
    assert_eq!(rows[1][..5], ["good", "https://hooks.example.com", "enabled", "True", "True"]);
    let shown = kubectl.run(&["get", "gwh", "-o", "wide"]).await.expect();
    assert_eq!(table(&shown)[0][7..], ["ID", "ROTATED"]);
}

#[tokio::test]
async fn short_names_categories_and_selectors_work() {
    let cluster = cluster().await;
    let namespace = populated().await;
    let kubectl = cluster.kubectl(&namespace);
    let (batch, webhook) =
        ("geminibatch.gemini-operator.io/good\n", "geminiwebhook.gemini-operator.io/good\n");
    for (args, expected) in [
        (&["gb"][..], batch.to_owned()),
        (&["gbatch"], batch.to_owned()),
        (&["geminibatches"], batch.to_owned()),
        (&["gwh"], webhook.to_owned()),
        (&["gemini"], format!("{batch}{webhook}")),
        (&["all"], batch.to_owned()),
        (&["gb", "--field-selector=status.phase=Succeeded,spec.model=gemini-3.5-flash"], batch.to_owned()),
        (&["gb", "--field-selector=status.phase=Failed"], String::new()),
        (&["gb", "--field-selector=spec.model!=gemini-3.5-flash"], String::new()),
    ] {
        let args = [&["get", "-o", "name"], args].concat();
        assert_eq!(kubectl.run(&args).await.expect(), expected, "kubectl {args:?}");
    }
}

#[tokio::test]
async fn kubectl_refuses_what_it_does_not_know() {
    let cluster = cluster().await;
    let namespace = Applicant::batch().await.namespace;
    let mut object = good_batch();
    object["spec"]["modle"] = json!("gemini-3.5-flash");
    let said = cluster.kubectl(&namespace).apply(&object.to_string()).await.expect_refused();
    assert!(said.contains(r#"strict decoding error: unknown field "spec.modle""#), "{said}");
}

#[tokio::test]
async fn explain_is_the_manual() {
    let cluster = cluster().await;
    let kubectl = cluster.kubectl("default");
    let manual = kubectl.run(&["explain", "gb.spec.input"]).await.expect();
    for words in [
        "GROUP:      gemini-operator.io",
        "FIELD: input <Object>",
        "Where the requests come from: exactly one source.",
        "configMapRef\t<Object>",
        "Requests as JSON Lines in a ConfigMap of this namespace.",
        "inline\t<Object>",
        "Requests written into this object. The whole object must fit into etcd's 1.5",
    ] {
        assert!(manual.contains(words), "{words:?} is not in:\n{manual}");
    }
    let manual = kubectl.run(&["explain", "gwh.spec.endpoint.url"]).await.expect();
    assert!(manual.contains("Public https address of the receiver's Ingress"), "{manual}");
}

/// Every field has a description: a field without one is a hole in the manual.
#[tokio::test]
async fn every_field_is_described() {
    let cluster = cluster().await;
    let crds = cluster.kubectl("default").run(&["get", "crd", "-o", "json"]).await.expect();
    let crds: Value = serde_json::from_str(&crds).expect("kubectl prints JSON");
    let ours = crds["items"].as_array().into_iter().flatten();
    let ours: Vec<&Value> = ours.filter(|crd| crd["spec"]["group"] == "gemini-operator.io").collect();
    assert_eq!(ours.len(), 2);
    let mut holes = vec![];
    for crd in ours {
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        for part in ["spec", "status"] {
            find_holes(&schema[part], &format!("{}.{part}", crd["spec"]["names"]["kind"]), &mut holes);
        }
    }
    assert!(holes.is_empty(), "without a description: {holes:#?}");
}

fn find_holes(schema: &Value, path: &str, holes: &mut Vec<String>) {
    if schema["description"].as_str().is_none_or(str::is_empty) && !path.ends_with("[]") {
        holes.push(path.to_owned());
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        find_holes(property, &format!("{path}.{name}"), holes);
    }
    if schema["items"].is_object() {
        find_holes(&schema["items"], &format!("{path}[]"), holes);
    }
}

/// Each sample is applied as it is, all documents of it, by the API server's strict rules.
#[tokio::test]
async fn samples_apply() {
    let cluster = cluster().await;
    let namespace = Applicant::batch().await.namespace;
    let folder = tools::root().join("deploy/samples");
    let mut samples: Vec<_> = fs::read_dir(&folder).expect("there are samples").flatten().collect();
    samples.sort_by_key(fs::DirEntry::path);
    assert!(!samples.is_empty(), "{} is empty", folder.display());
    for sample in samples {
        let path = sample.path();
        let path = path.to_string_lossy();
        let apply = ["apply", "--validate=strict", "-f", &path];
        let said = cluster.kubectl(&namespace).run(&apply).await;
        assert!(said.ok, "{path}: {}", said.stderr);
        assert!(said.stderr.is_empty(), "{path}: the API server warns: {}", said.stderr);
    }
}
