//! Small hand-made runs that hold, for tests that break one thing in them.

use serde_json::{Value, json};

use crate::{Bounds, Evidence, Report, check};

pub const K: &str = "k";
const CONTROLLER: &str = "system:serviceaccount:operators:gemini-operator-controller";
const RECEIVER: &str = "system:serviceaccount:operators:gemini-operator-receiver";

/// A run in the making. Times are seconds after midnight.
pub struct Sample {
    pub evidence: Evidence,
    pub bounds: Bounds,
    version: u64,
    pub status: Value,
    spec: Value,
}

/// A moment of the sample's day.
pub fn at(second: f64) -> String {
    let begin: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    crate::read::after(begin, std::time::Duration::from_secs_f64(second)).to_string()
}

pub fn marker(n: i64) -> String {
    format!("gb1.{K}.{n}.tag")
}

impl Sample {
    /// An object that has only just been seen.
    pub fn new() -> Self {
        let mut sample = Self {
            evidence: Evidence {
                ledger: json!({"requests": [], "open": [], "jobs": [], "deliveries": [], "deleted_files": []}),
                audit: Some(vec![]),
                ..Evidence::default()
            },
            bounds: Bounds::divided(300),
            version: 1,
            status: json!({"identity": {"uid": "u", "submitKey": K}, "phase": "Queued", "conditions": []}),
            spec: json!({"deletionPolicy": "Delete", "deletionTimeout": "20m"}),
        };
        sample.write(1.0);
        sample
    }

    /// One row, one request, one job, one event, results.
    pub fn whole() -> Self {
        let mut sample = Self::new();
        sample.stage(2.0).intend(3.0, 1, "files/gb-k-a").post(
            4.0,
            1,
            "files/gb-k-a",
            Some(200),
            Some("batches/a"),
        );
        sample.job("batches/a", 1, "BATCH_STATE_SUCCEEDED").record(5.0, "batches/a");
        sample.call(6.0, "batches.get", "/v1/batches/a", 200).state(7.0, "RUNNING", "Running");
        sample.delivery(10.0, "batches/a", "msg_1").hint(9.9, "batches/a");
        sample.call(11.0, "batches.get", "/v1/batches/a", 200).state(12.0, "SUCCEEDED", "Delivering");
        sample.deliver(14.0);
        sample
    }

    /// A request whose answer was lost, given up on, and made again as safely as it has to be.
    pub fn doubtful() -> Self {
        let mut sample = Self::new();
        sample.stage(2.0).intend(3.0, 1, "files/gb-k-a").post(4.0, 1, "files/gb-k-a", None, None);
        sample.submission(5.0, "Fenced").file_deleted(5.5, "files/gb-k-a").submission(9.0, "Abandoned");
        sample.intend(10.0, 2, "files/gb-k-b").post(11.0, 2, "files/gb-k-b", Some(200), Some("batches/b"));
        sample.job("batches/b", 2, "BATCH_STATE_SUCCEEDED").record(12.0, "batches/b");
        sample.call(13.0, "batches.get", "/v1/batches/b", 200).state(14.0, "SUCCEEDED", "Delivering");
        sample.deliver(15.0);
        sample
    }

    /// A job that no listing had shown: the fence takes its input, then it shows, and fails. Another one is made.
    pub fn without_input() -> Self {
        let mut sample = Self::new();
        sample.stage(2.0).intend(3.0, 1, "files/gb-k-a").post(
            4.0,
            1,
            "files/gb-k-a",
            None,
            Some("batches/a"),
        );
        sample.submission(5.0, "Fenced").file_deleted(5.5, "files/gb-k-a").record(6.0, "batches/a");
        sample.job("batches/a", 1, "BATCH_STATE_FAILED").job_with("billable", json!(false));
        sample.job_with("end_time", json!(at(6.5)));
        sample.change(7.0, |s| {
            s["phase"] = json!("Submitting");
            s["runs"][0]["submission"] = json!("Abandoned");
        });
        sample.intend(7.5, 2, "files/gb-k-b").post(8.0, 2, "files/gb-k-b", Some(200), Some("batches/b"));
        sample.job("batches/b", 2, "BATCH_STATE_SUCCEEDED").record(12.0, "batches/b");
        sample.call(13.0, "batches.get", "/v1/batches/b", 200).state(14.0, "SUCCEEDED", "Delivering");
        sample.deliver(15.0);
        sample
    }

    pub fn check(&self) -> Report {
        check(&self.evidence, &self.bounds)
    }

    /// It holds.
    pub fn holds(&self) {
        let report = self.check();
        assert!(report.violations.is_empty(), "{report}");
    }

    /// It is found to break this one, and its text has these words.
    pub fn breaks(&self, invariant: &str, words: &str) {
        let report = self.check();
        let found = report.violations.iter().any(|v| v.invariant == invariant && v.text.contains(words));
        assert!(found, "no {invariant} with {words:?} in:\n{report}");
    }

    // ---- what the API server saw ----

    pub fn event(
        &mut self,
        second: f64,
        user: &str,
        verb: &str,
        resource: &str,
        code: u64,
        body: impl Into<Value>,
    ) -> &mut Self {
        let (resource, sub) = resource.split_once('/').map_or((resource, None), |(r, s)| (r, Some(s)));
        let mut object = json!({"resource": resource, "namespace": "ns", "name": "b"});
        if let Some(sub) = sub {
            object["subresource"] = json!(sub);
        }
        self.evidence.audit.as_mut().unwrap().push(json!({
            "user": {"username": user}, "verb": verb, "objectRef": object, "responseStatus": {"code": code},
            "requestReceivedTimestamp": at(second), "stageTimestamp": at(second + 0.1), "requestObject": body.into(),
        }));
        self
    }

    /// The controller writes the status as it stands.
    pub fn write(&mut self, second: f64) -> &mut Self {
        self.version += 1;
        let body = json!({
            "metadata": {"uid": "u", "resourceVersion": self.version.to_string()},
            "spec": self.spec, "status": self.status,
        });
        self.event(second, CONTROLLER, "update", "geminibatches/status", 200, body)
    }

    pub fn change(&mut self, second: f64, change: impl FnOnce(&mut Value)) -> &mut Self {
        change(&mut self.status);
        self.write(second)
    }

    pub fn stage(&mut self, second: f64) -> &mut Self {
        self.change(second, |s| (s["phase"], s["input"]) = (json!("Staging"), json!({"rows": 2})))
    }

    pub fn intend(&mut self, second: f64, n: i64, file: &str) -> &mut Self {
        self.change(second, |s| {
            s["phase"] = json!("Submitting");
            s["runs"] = json!([{
                "name": "run-1", "attempt": n, "submission": "Pending", "nonce": format!("nonce-{n}"),
                "marker": marker(n), "inputFile": file,
            }]);
        })
    }

    pub fn submission(&mut self, second: f64, submission: &str) -> &mut Self {
        self.change(second, |s| s["runs"][0]["submission"] = json!(submission))
    }

    pub fn record(&mut self, second: f64, job: &str) -> &mut Self {
        self.change(second, |s| {
            s["phase"] = json!("Pending");
            s["runs"][0]["submission"] = json!("Recorded");
            s["runs"][0]["remoteName"] = json!(job);
        })
    }

    pub fn state(&mut self, second: f64, state: &str, phase: &str) -> &mut Self {
        self.change(second, |s| (s["phase"], s["runs"][0]["state"]) = (json!(phase), json!(state)))
    }

    /// Two rows: one result, one error. The object and its sink are there in the end.
    pub fn deliver(&mut self, second: f64) -> &mut Self {
        let results = "{\"key\":\"a\"}\n";
        let digest = crate::results::digest(results);
        self.change(second, |s| {
            s["phase"] = json!("PartiallySucceeded");
            s["completionTime"] = json!(at(second));
            s["conditions"] = json!([{"type": "Complete", "status": "True", "reason": "PartiallySucceeded"}]);
            s["output"] = json!({"sha256": digest, "lines": 1, "bytes": results.len()});
        });
        self.evidence.objects = vec![
            json!({
                "kind": "GeminiBatch", "metadata": {"namespace": "ns", "name": "b", "uid": "u"},
                "spec": self.spec, "status": self.status,
            }),
            json!({
                "kind": "ConfigMap",
                "metadata": {
                    "namespace": "ns", "name": "b-results", "annotations": {"gemini-operator.io/batch": "b"},
                },
                "data": {"results.jsonl": results, "errors.jsonl": "{}\n", "manifest.json": "{\"uid\":\"u\"}"},
            }),
        ];
        self
    }

    pub fn hint(&mut self, second: f64, job: &str) -> &mut Self {
        let body = json!({"metadata": {"uid": "u"}, "status": {"lastEvent": {"id": "x", "remoteName": job}}});
        self.event(second, RECEIVER, "patch", "geminibatches/status", 200, body)
    }

    pub fn as_receiver(&mut self, second: f64, resource: &str, body: Value) -> &mut Self {
        self.event(second, RECEIVER, "patch", resource, 200, body)
    }

    /// Somebody takes the status away.
    pub fn wipe(&mut self, second: f64) -> &mut Self {
        self.event(
            second,
            "admin",
            "patch",
            "geminibatches/status",
            200,
            json!([{"op": "remove", "path": "/status"}]),
        )
    }

    pub fn delete(&mut self, second: f64) -> &mut Self {
        self.event(second, "admin", "delete", "geminibatches", 200, Value::Null)
    }

    /// The finalizer goes, and the object with it.
    pub fn release(&mut self, second: f64) -> &mut Self {
        self.evidence.objects.retain(|object| object["kind"] != "GeminiBatch");
        let body = json!({"metadata": {"finalizers": []}});
        self.event(second, CONTROLLER, "patch", "geminibatches", 200, body)
    }

    pub fn policy(&mut self, policy: &str) -> &mut Self {
        self.spec["deletionPolicy"] = json!(policy);
        self
    }

    // ---- what the emulator saw ----

    fn push(&mut self, list: &str, entry: Value) -> &mut Self {
        self.evidence.ledger[list].as_array_mut().unwrap().push(entry);
        self
    }

    pub fn post(
        &mut self,
        second: f64,
        n: i64,
        file: &str,
        status: Option<u16>,
        job: Option<&str>,
    ) -> &mut Self {
        let mut entry = create(second, n, file);
        entry["status"] = json!(status);
        entry["ended"] = json!(at(second + 0.2));
        if let Some(job) = job {
            entry["job"] = json!(job);
        }
        self.push("requests", entry)
    }

    /// A request that is still held.
    pub fn post_held(&mut self, second: f64, n: i64, file: &str) -> &mut Self {
        self.push("open", create(second, n, file))
    }

    pub fn job(&mut self, name: &str, n: i64, state: &str) -> &mut Self {
        self.push(
            "jobs",
            json!({"name": name, "display_name": marker(n), "state": state, "create_time": at(4.0)}),
        )
    }

    /// The newest job, with something different.
    pub fn job_with(&mut self, field: &str, value: Value) -> &mut Self {
        self.evidence.ledger["jobs"].as_array_mut().unwrap().last_mut().unwrap()[field] = value;
        self
    }

    pub fn call(&mut self, second: f64, call: &str, path: &str, status: u16) -> &mut Self {
        let seq = self.evidence.ledger["requests"].as_array().unwrap().len();
        self.push(
            "requests",
            json!({"seq": seq, "call": call, "path": path, "status": status, "arrived": at(second)}),
        )
    }

    pub fn file_deleted(&mut self, second: f64, name: &str) -> &mut Self {
        self.push("deleted_files", json!({"name": name, "deleted": at(second)}))
    }

    pub fn delivery(&mut self, second: f64, job: &str, id: &str) -> &mut Self {
        let event = "batch.succeeded";
        self.push(
            "deliveries",
            json!({"event_type": event, "batch": job, "webhook_id": id, "status": 204, "ended": at(second), "seq": 1}),
        )
    }
}

fn create(second: f64, n: i64, file: &str) -> Value {
    json!({
        "call": "batches.create", "arrival": json!(second * 10.0).as_f64().map(|tenths| format!("{tenths:.0}").parse::<u64>().unwrap()),
        "arrived": at(second), "display_name": marker(n), "input_file": file,
    })
}
