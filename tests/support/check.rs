//! What the checker says of a bed: everything that the run left behind, judged apart from the operator's own code.
//!
//! `GEMINI_OPERATOR_EVIDENCE=DIR` keeps the evidence, for
//! `gemini-operator-checker --ledger DIR/NAMESPACE/ledger.json …`.

use std::fs;
use std::path::Path;

use gemini_operator_checker::{Bounds, Evidence, Report, check};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use serde_json::{Value, json};

use super::cluster::OPERATOR_NAMESPACE;
use super::{Bed, Room, audit};

const ORPHANS: &str = "gemini-operator-orphans";

impl Room {
    /// Everything that the checker looks at, until now. The order matters: what comes later may know more, never less.
    pub async fn evidence(&self) -> Evidence {
        let said = self.kubectl().run(&["get", "geminibatches,configmaps", "--output", "json"]).await;
        assert!(said.ok, "{}", said.stderr);
        let objects: Value = serde_json::from_str(&said.stdout).expect("kubectl prints JSON");
        let orphans: Api<ConfigMap> = Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        let orphans = orphans.get_opt(ORPHANS).await.expect("the orphan ledger can be read");
        let ledger = self.ledger().await.0;
        // On a cluster that is not ours there is no such log; the report says what that leaves open.
        let audit = match (self.audit_up_to_now().await, &self.asked) {
            (Some(_), Some(log)) => Some(audit::events(log, &self.namespace)),
            _ => None,
        };
        Evidence {
            ledger,
            audit,
            objects: objects["items"].as_array().cloned().unwrap_or_default(),
            orphans: orphans.map(|map| json!({"data": map.data})),
        }
    }

    /// The judgement, whatever it is.
    pub async fn check(&self, bounds: &Bounds) -> Report {
        let evidence = self.evidence().await;
        let report = check(&evidence, bounds);
        for unjudged in &report.unjudged {
            eprintln!("{}: not judged: {unjudged}", self.namespace);
        }
        if let Some(dir) = std::env::var_os("GEMINI_OPERATOR_EVIDENCE") {
            keep(&evidence, &Path::new(&dir).join(&self.namespace));
        }
        report
    }

    /// Panics with everything that is wrong.
    pub async fn assert_holds(&self, bounds: &Bounds) -> Report {
        let report = self.check(bounds).await;
        assert!(report.violations.is_empty(), "the run does not hold:\n{report}");
        report
    }
}

fn keep(evidence: &Evidence, dir: &Path) {
    let lines: Vec<String> = evidence.audit.iter().flatten().map(Value::to_string).collect();
    let files = [
        ("ledger.json", evidence.ledger.to_string()),
        ("audit.log", lines.join("\n")),
        ("objects.json", json!({"items": evidence.objects}).to_string()),
        ("orphans.json", evidence.orphans.clone().unwrap_or_default().to_string()),
    ];
    fs::create_dir_all(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    for (name, text) in files {
        fs::write(dir.join(name), text).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    }
}

impl Bed {
    /// Nothing out of the ordinary, with this bed's windows.
    pub fn bounds(&self) -> Bounds {
        Bounds::divided(self.options.timing_divisor)
    }

    /// Everything has come to its end, and all invariants hold; panics with everything that is wrong.
    pub async fn assert_invariants(&self) {
        self.assert_holds(&self.bounds()).await;
    }
}
