//! What a batch costs: the same for one row and for five hundred, and no less when its event comes too early.

use serde_json::json;

use crate::objects::tickets;
use crate::support::{Bed, BedOptions, CONTROLLER, PATIENCE, RECEIVER, batch_condition, poll};

/// Everything that was done for one batch, sorted.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    controller_writes: Vec<String>,
    receiver_writes: Vec<String>,
    calls: Vec<String>,
}

/// Runs one batch to its end, and counts.
async fn cost(bed: &Bed, name: &str, rows: usize) -> Cost {
    let before = bed.ledger().await.sequence().len();
    bed.apply(&tickets(name, rows, "Auto")).await;
    // Held by the fault plan, so that the look after the recording sees the same state on any machine.
    let batch = bed.wait_batch(name, "looked at", |b| run_state(b) == Some("PENDING")).await;
    let remote = batch.status.and_then(|s| s.runs.last()?.remote_name.clone()).expect("a name is recorded");
    assert_eq!(bed.ledger().await.calls_about("batches.get", &remote), 1, "one GET before the event");
    // It does not run for a while first: a sweep that falls into that time shows it running, which is worth a write.
    bed.emulator.finish_job(&remote).await;
    bed.wait_complete(name).await;
    let ledger = bed.ledger().await;
    assert_eq!(ledger.calls_about("batches.get", &remote), 2, "two GETs in all");
    assert_eq!(ledger.deliveries("batch.succeeded").last().map(|d| &d["batch"]), Some(&json!(remote)));
    // The sweep belongs to the key and to the clock, not to a batch.
    let calls = ledger.sequence().split_off(before).into_iter().map(|(call, _)| call);
    let mut calls: Vec<String> = calls.filter(|call| call != "batches.list").collect();
    calls.sort();

    bed.wait_event(name, "Succeeded").await;
    let writes = bed.audit_up_to_now().await.unwrap_or_default();
    let by = |account: &str| {
        let about = |name_written: &str| {
            name_written
                .strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
        };
        let of = writes.iter().filter(|w| w.user == account && w.is_write() && about(&w.name));
        let mut of: Vec<String> = of.map(|w| format!("{} {} {}", w.verb, w.resource, w.code)).collect();
        of.sort();
        of
    };
    Cost { controller_writes: by(CONTROLLER), receiver_writes: by(RECEIVER), calls }
}

fn run_state(batch: &gemini_operator::api::GeminiBatch) -> Option<&str> {
    batch.status.as_ref()?.runs.last()?.state.as_deref()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_rows_cost_what_one_row_costs() {
    let faults = json!({"jobs": [{"do": {"hold": "pending"}}]});
    // The windows of production: a sweep every ten minutes.
    let options = BedOptions { faults: Some(faults), timing_divisor: 1, ..BedOptions::default() };
    let bed = Bed::with("economy", options).await;
    bed.make_api_key().await;
    bed.make_webhook().await;
    let one = cost(&bed, "one", 1).await;
    let many = cost(&bed, "many", 500).await;
    assert_eq!(one, many);
    assert_eq!(one.calls.iter().filter(|call| *call == "batches.create").count(), 1);
    if bed.audit().is_some() {
        assert_eq!(one.receiver_writes, ["patch geminibatches/status 200"], "one hint");
        assert!(one.controller_writes.contains(&"create configmaps 201".to_owned()), "{one:?}");
        let refused: Vec<_> = one.controller_writes.iter().filter(|w| !w.contains(" 20")).collect();
        assert!(refused.is_empty(), "no write was in vain: {refused:?}");
    }
    bed.assert_invariants().await;
}

/// The event of a short job is there before the answer that names the job.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_before_its_job_is_recorded_completes_the_batch() {
    let faults =
        json!({"rules": [{"match": {"call": "batches.create"}, "do": {"hold": "answer"}, "times": 1}]});
    // The windows of production: the sweep, in ten minutes, is no way out of this.
    let options = BedOptions {
        faults: Some(faults),
        job_time: "200ms".into(),
        timing_divisor: 1,
        ..BedOptions::default()
    };
    let bed = Bed::with("early-event", options).await;
    bed.make_api_key().await;
    bed.make_webhook().await;
    bed.apply(&tickets("tickets", 3, "Auto")).await;
    let delivery = poll(PATIENCE, async || {
        bed.ledger().await.deliveries("batch.succeeded").first().map(|d| (*d).clone()).ok_or(())
    });
    let delivery = delivery.await.expect("the event is delivered");
    assert_eq!((&delivery["status"], &delivery["outcome"]), (&json!(204), &json!("delivered")), "{delivery}");
    let batch = bed.batches().get("tickets").await.unwrap();
    let run = batch.status.as_ref().and_then(|s| s.runs.last()).expect("the intent stands");
    assert_eq!(run.remote_name, None, "the event came before the name");
    assert_eq!(bed.metric("gemini_operator_receiver_deliveries_total{outcome=\"early\"}").await, Some(1.0));

    bed.emulator.release_calls().await;
    let batch = bed.wait_complete("tickets").await;
    assert_eq!(batch_condition(&batch, "Submitted").unwrap().reason, "Submitted");
    let ledger = bed.ledger().await;
    assert_eq!((ledger.jobs().len(), ledger.calls("batches.create")), (1, 1));
    assert!(ledger.calls("batches.get") <= 2, "{:?}", ledger.sequence());
    assert_eq!(ledger.deliveries("batch.succeeded").len(), 1, "nothing is delivered again");
    // The look that follows every recording saw the end, and no sweep was needed. What the receiver had kept was stored
    // when the name appeared.
    assert_eq!(bed.metric("gemini_operator_sweep_rescues_total").await, Some(0.0));
    let applied = "gemini_operator_receiver_early_events_total{outcome=\"applied\"}";
    let counted = poll(PATIENCE, async || match bed.metric(applied).await {
        Some(1.0) => Ok(()),
        other => Err(other),
    });
    counted.await.expect("the early event is stored");
    let batch = bed.batches().get("tickets").await.unwrap();
    assert_eq!(batch.status.unwrap().last_event.map(|e| e.type_).as_deref(), Some("batch.succeeded"));
    bed.assert_invariants().await;
}
