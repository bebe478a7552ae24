//! Many batches at once.

use serde_json::{Value, json};

use crate::main_job::answer;
use crate::objects::tickets;
use crate::support::Bed;

const BATCHES: usize = 20;
const ROWS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn twenty_batches_at_once_become_twenty_jobs() {
    let bed = Bed::new("many").await;
    bed.make_api_key().await;
    bed.make_webhook().await;
    let items: Vec<Value> = (1..=BATCHES)
        .map(|n| {
            let mut batch: Value =
                serde_json::from_str(&tickets(&format!("batch-{n}"), ROWS, "Auto")).unwrap();
            for (i, request) in
                batch["spec"]["input"]["inline"]["requests"].as_array_mut().unwrap().iter_mut().enumerate()
            {
                request["prompt"] = json!(prompt(n, i));
            }
            batch
        })
        .collect();
    bed.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()).await;
    let wait = ["wait", "--for=condition=Complete", "geminibatch", "--all", "--timeout=120s"];
    let said = bed.kubectl().run(&wait).await;
    assert!(said.ok, "{}{}\n{}", said.stdout, said.stderr, bed.log_tails());
    assert_eq!(said.stdout.lines().count(), BATCHES, "{}", said.stdout);

    for n in 1..=BATCHES {
        let results = bed.results(&format!("batch-{n}")).await;
        let lines: Vec<Value> =
            results.answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let expected: Vec<Value> = (0..ROWS)
            .map(|i| json!({"key": format!("ticket-{}", i + 1), "response": answer(&prompt(n, i))}))
            .collect();
        assert_eq!(lines, expected, "batch-{n}");
    }
    let ledger = bed.ledger().await;
    assert_eq!((ledger.jobs().len(), ledger.calls("batches.create")), (BATCHES, BATCHES));
    assert_eq!(ledger.rows_paid(), (BATCHES * ROWS) as u64);
    for job in ledger.jobs() {
        let name = job["name"].as_str().unwrap();
        let looks = ledger.calls_about("batches.get", name);
        assert!(looks <= 2, "{looks} GETs of {name}");
    }
    bed.assert_invariants().await;
}

fn prompt(batch: usize, row: usize) -> String {
    format!("Batch {batch}, row {row}")
}
