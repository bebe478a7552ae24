//! Objects that the API server stores and the operator cannot read: they are skipped loudly, the others go on.

use serde_json::{Value, json};

use crate::objects::tickets;
use crate::support::Bed;

/// A batch whose `generationConfig`, which is Gemini's business and open in the schema, is nested deeper than a JSON
/// parser goes. Anybody who may create a batch can write it.
fn deep(name: &str, depth: usize) -> Value {
    let mut batch: Value = serde_json::from_str(&tickets(name, 1, "None")).unwrap();
    let config = (0..depth).fold(json!({"type": "STRING"}), |inner, _| json!({"properties": {"a": inner}}));
    batch["spec"]["input"]["inline"]["requests"][0]["generationConfig"] = json!({ "responseSchema": config });
    batch
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_cannot_be_read_does_not_stop_the_others() {
    let mut bed = Bed::new("malformed").await;
    bed.make_api_key().await;
    bed.make_webhook().await;
    bed.apply(&deep("deep", 150).to_string()).await;
    let note = bed.wait_event("deep", "Malformed").await;
    assert!(note.contains("recursion limit") && note.contains("until it is corrected"), "{note}");
    assert!(bed.metric("gemini_operator_malformed_objects_total").await.is_some_and(|count| count >= 1.0));
    assert!(bed.logs().contains("object skipped"), "{}", bed.log_tails());

    // Seen as a change, and, by new processes, in their first list: the others go on, with their events.
    bed.apply(&tickets("before", 1, "Static")).await;
    bed.wait_complete("before").await;
    bed.kill_controller();
    bed.kill_receiver();
    bed.start_receiver().await;
    bed.start_controller().await;
    bed.apply(&tickets("after", 1, "Static")).await;
    let after = bed.wait_complete("after").await;
    assert!(after.status.unwrap().last_event.is_some(), "the receiver reads its objects too");
    assert_eq!(bed.ledger().await.jobs().len(), 2, "nothing was done for the one that cannot be read");

    bed.apply(&deep("deep", 2).to_string()).await;
    bed.wait_complete("deep").await;
}
