//! What events, results, deletions and silence have to be.

use serde_json::{Value, json};

use super::{A, B, statuses, whole};
use crate::sample::{Sample, at};

#[test]
fn i6_the_receiver_writes_the_hint_and_nothing_else() {
    whole(|s| {
        s.as_receiver(8.0, "geminibatches/status", json!({"status": {"phase": "Failed"}}));
    })
    .breaks("I6", "phase");
    whole(|s| {
        s.as_receiver(8.0, "geminibatches", json!({"metadata": {"finalizers": []}}));
    })
    .breaks("I6", "patch of geminibatches");
    whole(|s| {
        s.as_receiver(8.0, "configmaps", Value::Null);
    })
    .breaks("I6", "patch of configmaps");
    whole(|s| {
        s.as_receiver(8.0, "geminiwebhooks/status", json!({"status": {"lastDelivery": {}}}));
    })
    .holds();
}

#[test]
fn i6_the_state_of_a_job_is_what_gemini_says() {
    whole(|s| statuses(s).nth(6).unwrap()["runs"][0]["state"] = json!("FAILED"))
        .breaks("I6", "at Gemini it is");
    whole(|s| s.evidence.ledger["requests"].as_array_mut().unwrap().retain(|r| r["call"] != "batches.get"))
        .breaks("I6", "nobody had looked at Gemini");
}

#[test]
fn i6_events_cost_few_looks() {
    let look = |seconds: &[f64]| {
        whole(|s| {
            for second in seconds {
                s.call(*second, "batches.get", "/v1/batches/a", 200);
            }
        })
    };
    // The window is 100 ms here.
    look(&[8.0, 8.2, 8.4, 8.6, 8.8, 9.0]).holds();
    look(&[8.00, 8.01, 8.02, 8.03]).holds();
    look(&[8.00, 8.01, 8.02, 8.03, 8.04]).breaks("I6", "at most 4");
}

#[test]
fn i7_results_are_what_the_status_says() {
    let sink = |change: fn(&mut Value)| whole(|s| change(&mut s.evidence.objects[1]));
    sink(|map| map["data"]["results.jsonl"] = json!("{\"key\":\"b\"}\n")).breaks("I7", "SHA-256");
    sink(|map| map["metadata"]["annotations"] = json!({})).breaks("I7", "SHA-256");
    sink(|map| map["data"]["errors.jsonl"] = json!("")).breaks("I7", "1 results and 0 errors for Some(2)");
    whole(|s| s.evidence.objects[0]["status"]["output"]["lines"] = json!(7)).breaks("I7", "7 lines");
    whole(|s| s.evidence.objects[0]["status"]["output"] = Value::Null).breaks("I7", "without status.output");
    whole(|s| {
        s.change(20.0, |status| status["output"]["lines"] = json!(2));
    })
    .breaks("I7", "written twice");
    whole(|s| {
        s.evidence.objects[1]["data"] = json!({});
        s.bounds.sinks_changed = vec!["b".into()];
    })
    .holds();
}

#[test]
fn i8_who_took_an_event_did_something_about_it() {
    let no_hint = |change: fn(&mut Sample)| {
        whole(|s| {
            s.evidence.audit.as_mut().unwrap().retain(|e| e["verb"] != "patch");
            change(s);
        })
    };
    let at_second =
        |s: &mut Sample, second: f64| s.evidence.ledger["deliveries"][0]["ended"] = json!(at(second));
    // The look that followed the recording had seen the end that it tells of.
    no_hint(|_| {}).holds();
    // The batch was over, or the end was seen.
    let mut over = no_hint(|_| {});
    at_second(&mut over, 16.0);
    over.holds();
    // Somebody else's job.
    no_hint(|s| s.evidence.ledger["deliveries"][0]["batch"] = json!("batches/foreign")).holds();
    // Refused, it comes again.
    no_hint(|s| s.evidence.ledger["deliveries"][0]["status"] = json!(503)).holds();
}

#[test]
fn i8_a_hint_must_stand_before_its_answer_unless_the_name_was_not_known() {
    let hinted = |recorded: f64, delivered: f64, stored: f64| {
        let mut sample = Sample::new();
        sample.stage(2.0).intend(3.0, 1, A).post(4.0, 1, A, Some(200), Some("batches/a"));
        sample.job("batches/a", 1, "BATCH_STATE_SUCCEEDED").record(recorded, "batches/a");
        sample.delivery(delivered, "batches/a", "msg").hint(stored, "batches/a");
        sample
            .call(190.0, "batches.get", "/v1/batches/a", 200)
            .state(191.0, "SUCCEEDED", "Delivering")
            .deliver(192.0);
        sample
    };
    // Seven seconds more for an API server that takes seven for another answer; none for one that was slow before.
    let slow = |from: f64, delivered: f64| {
        let mut sample = hinted(20.0, delivered, delivered + 5.0);
        sample.event(from, "admin", "create", "configmaps", 201, Value::Null);
        let last = sample.evidence.audit.as_mut().unwrap().last_mut().unwrap();
        last["stageTimestamp"] = json!(at(from + 7.0));
        sample
    };
    slow(22.0, 36.5).holds();
    slow(22.0, 37.5).breaks("I8", "neither was it stored");
    slow(5.0, 36.5).breaks("I8", "neither was it stored");
    hinted(5.0, 30.0, 29.9).holds();
    hinted(5.0, 30.0, 30.5).breaks("I8", "neither was it stored");
    hinted(5.0, 4.9, 6.0).holds();
    // A receiver that was stopped since before the recording has heard of nothing when it goes on, but soon after it has.
    let stopped = |from: f64, to: f64| {
        let mut sample = hinted(5.0, 30.0, 30.5);
        sample.bounds.receivers_stopped = vec![(at(from).parse().unwrap(), at(to).parse().unwrap())];
        sample
    };
    stopped(4.0, 29.9).holds();
    stopped(4.0, 19.9).breaks("I8", "neither was it stored");
    stopped(26.0, 29.9).breaks("I8", "neither was it stored");
    stopped(31.0, 60.0).breaks("I8", "neither was it stored");
    hinted(5.0, 4.9, 100.0).breaks("I8", "neither was it stored");
}

#[test]
fn i8_a_hint_whose_write_was_given_up_counts_if_it_stands() {
    let given_up = |stands: Option<&str>| {
        let mut sample = Sample::new();
        sample.stage(2.0).intend(3.0, 1, A).post(4.0, 1, A, Some(200), Some("batches/a"));
        sample.job("batches/a", 1, "BATCH_STATE_SUCCEEDED").record(5.0, "batches/a");
        sample.hint(29.9, "batches/a").delivery(30.0, "batches/a", "msg");
        sample.evidence.audit.as_mut().unwrap().last_mut().unwrap()["responseStatus"]["code"] = json!(504);
        if let Some(id) = stands {
            sample.status["lastEvent"] = json!({"id": id, "remoteName": "batches/a"});
        }
        sample
            .call(190.0, "batches.get", "/v1/batches/a", 200)
            .state(191.0, "SUCCEEDED", "Delivering")
            .deliver(192.0);
        sample
    };
    given_up(Some("x")).holds();
    given_up(Some("another")).breaks("I8", "neither was it stored");
    given_up(None).breaks("I8", "neither was it stored");
}

#[test]
fn i8_the_look_after_the_recording_stands_for_an_event_that_came_before_it() {
    let seen = |delivered: f64, second: f64| {
        let mut sample = Sample::new();
        sample.stage(2.0).intend(3.0, 1, A).post(4.0, 1, A, Some(200), Some("batches/a"));
        sample.job("batches/a", 1, "BATCH_STATE_SUCCEEDED").record(5.0, "batches/a");
        sample.delivery(delivered, "batches/a", "msg").call(second, "batches.get", "/v1/batches/a", 200);
        sample.state(second + 1.0, "SUCCEEDED", "Delivering").deliver(second + 2.0);
        sample
    };
    seen(4.9, 60.0).holds();
    seen(4.9, 80.0).breaks("I8", "neither was it stored");
    // Known by then: nobody was to count on a look.
    seen(30.0, 32.0).breaks("I8", "neither was it stored");
}

#[test]
fn i9_a_finalizer_goes_in_time() {
    // 20 minutes and 30 seconds by 300, and a minute.
    let gone = |second: f64| {
        whole(|s| {
            s.job_with("deleted", json!(true)).delete(20.0);
            s.release(second);
        })
    };
    gone(80.0).holds();
    gone(90.0).breaks("I9", "its finalizer went");
    whole(|s| {
        s.job_with("deleted", json!(true)).delete(20.0).event(
            100.0,
            "admin",
            "get",
            "configmaps",
            200,
            Value::Null,
        );
    })
    .breaks("I9", "it is still there");
}

#[test]
fn i12_what_has_settled_is_silent() {
    whole(|s| {
        s.write(20.0);
    })
    .breaks("I12", "says nothing new");
    let quiet = |change: fn(&mut Sample)| {
        whole(|s| {
            s.bounds.quiet_since = Some(at(19.0).parse().unwrap());
            change(s);
        })
    };
    quiet(|s| {
        s.call(20.0, "batches.list", "/v1/batches", 200);
    })
    .holds();
    quiet(|s| {
        s.call(20.0, "batches.get", "/v1/batches/a", 200);
    })
    .breaks("I12", "batches.get");
    quiet(|s| {
        s.post(20.0, 2, B, Some(403), None);
    })
    .breaks("I12", "request 200");
    quiet(|s| {
        s.hint(20.0, "batches/a");
    })
    .breaks("I12", "patch of geminibatches/status");
    quiet(|s| {
        s.event(20.0, "admin", "create", "configmaps", 201, Value::Null);
    })
    .holds();
}

#[test]
fn i13_everything_comes_to_its_end() {
    let open = |change: fn(&mut Sample)| {
        whole(|s| {
            s.evidence.objects[0]["status"] = json!({"phase": "Running", "conditions": []});
            s.evidence.objects.truncate(1);
            change(s);
        })
    };
    open(|_| {}).breaks("I13", "Running");
    assert_eq!(open(|_| {}).check().facts.lost, 1);
    open(|s| s.bounds.unfinished = vec!["b".into()]).holds();
    whole(|s| s.evidence.objects[0]["metadata"]["deletionTimestamp"] = json!(at(15.0)))
        .breaks("I13", "to be deleted");
}

#[test]
fn what_came_after_the_ledger_was_taken_does_not_count() {
    let mut sample = whole(|s| {
        s.change(20.0, |status| status["phase"] = json!("Failed"));
    });
    sample.breaks("I3", "left its end");
    sample.evidence.ledger["taken"] = json!(at(19.0));
    sample.holds();
}
