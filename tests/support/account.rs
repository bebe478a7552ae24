//! What a run cost, and whether each look at a job had a cause: the sum of the emulator's ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::emulator::Ledger;

/// The emulator's account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Jobs that were created.
    pub jobs: usize,
    /// Rows that were paid for.
    pub rows: u64,
    /// GETs of jobs.
    pub gets: usize,
    /// Those of them that neither a creation nor an event had caused.
    pub gets_by_timer: usize,
    /// Listings of jobs: the sweep's, and those that look for a lost one.
    pub lists: usize,
    /// Events of jobs that arrived, each counted once however often it was sent.
    pub events: usize,
}

/// What happened to one job.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// Causes come first: what has the same time as its cause came after it.
    Cause,
    Get,
}

impl Account {
    pub fn of(ledger: &Ledger) -> Self {
        let mut jobs: BTreeMap<&str, Vec<(Timestamp, Step)>> = BTreeMap::new();
        for job in entries(ledger, "jobs") {
            jobs.entry(id(&job["name"])).or_default().push((time(&job["create_time"]), Step::Cause));
        }
        let created = jobs.len();
        let mut events = BTreeSet::new();
        for delivery in entries(ledger, "deliveries") {
            let mut is_new = || events.insert((id(&delivery["batch"]), delivery["webhook_id"].as_str()));
            if !delivery["batch"].is_null() && delivery["outcome"] == "delivered" && is_new() {
                // The entry is written when the receiver has answered, and it notes the event before it answers.
                let took = Duration::from_micros(delivery["micros"].as_u64().unwrap_or_default());
                jobs.entry(id(&delivery["batch"]))
                    .or_default()
                    .push((time(&delivery["time"]) - took, Step::Cause));
            }
        }
        let (mut gets, mut lists) = (0, 0);
        for request in entries(ledger, "requests") {
            if request["call"] == "batches.get" {
                gets += 1;
                jobs.entry(id(&request["path"])).or_default().push((time(&request["time"]), Step::Get));
            }
            lists += usize::from(request["call"] == "batches.list");
        }
        Self {
            jobs: created,
            rows: ledger.rows_paid(),
            gets,
            gets_by_timer: jobs.into_values().map(without_cause).sum(),
            lists,
            events: events.len(),
        }
    }
}

/// A cause pays for one GET, now or later.
fn without_cause(mut steps: Vec<(Timestamp, Step)>) -> usize {
    steps.sort();
    let (mut causes, mut without) = (0_usize, 0);
    for (_, step) in steps {
        match step {
            Step::Cause => causes += 1,
            Step::Get if causes > 0 => causes -= 1,
            Step::Get => without += 1,
        }
    }
    without
}

fn entries<'a>(ledger: &'a Ledger, field: &str) -> &'a [Value] {
    ledger.0[field].as_array().map_or(&[], Vec::as_slice)
}

/// `batches/ID` or a path that ends with it.
fn id(name: &Value) -> &str {
    name.as_str().and_then(|name| name.rsplit('/').next()).unwrap_or_default()
}

fn time(text: &Value) -> Timestamp {
    text.as_str().and_then(|text| text.parse().ok()).expect("the ledger has times")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: u32) -> String {
        format!("2026-01-01T00:00:{second:02}Z")
    }

    fn get(second: u32, job: &str) -> Value {
        json!({"call": "batches.get", "path": format!("/v1beta/batches/{job}"), "time": at(second)})
    }

    fn delivery(second: u32, job: &str, id: &str, outcome: &str) -> Value {
        json!({"batch": format!("batches/{job}"), "webhook_id": id, "outcome": outcome, "time": at(second),
               "micros": 2_000_000})
    }

    fn account(requests: &[Value], deliveries: &[Value]) -> Account {
        let jobs = ["a", "b"].map(|job| json!({"name": format!("batches/{job}"), "create_time": at(1)}));
        Account::of(&Ledger(
            json!({"jobs": jobs, "rows_paid": 5, "requests": requests, "deliveries": deliveries}),
        ))
    }

    #[test]
    fn a_get_after_the_creation_and_one_after_the_event_have_causes() {
        // Job a's second GET is there before the receiver's answer is: the event had been noted at second 8.
        let requests = [
            get(2, "a"),
            get(9, "a"),
            get(2, "b"),
            get(11, "b"),
            json!({"call": "batches.list", "time": at(3)}),
        ];
        let deliveries = [
            json!({"batch": null, "webhook_id": "0", "outcome": "delivered", "time": at(0), "micros": 1}),
            delivery(10, "a", "1", "delivered"),
            delivery(10, "b", "2", "delivered"),
        ];
        let seen = account(&requests, &deliveries);
        assert_eq!(seen, Account { jobs: 2, rows: 5, gets: 4, gets_by_timer: 0, lists: 1, events: 2 });
    }

    #[test]
    fn every_other_get_is_a_timers() {
        let event = [delivery(10, "a", "1", "delivered")];
        // Before the event, after it, and of a job that had none; four GETs in all, as in the good case.
        assert_eq!(account(&[get(2, "a"), get(5, "a"), get(12, "a")], &event).gets_by_timer, 1);
        assert_eq!(account(&[get(2, "a"), get(12, "a"), get(13, "a")], &event).gets_by_timer, 1);
        assert_eq!(account(&[get(2, "a"), get(12, "a"), get(2, "b"), get(12, "b")], &event).gets_by_timer, 1);
        assert_eq!(account(&[get(2, "nobody's")], &event).gets_by_timer, 1);
    }

    #[test]
    fn an_event_counts_once_and_only_when_it_arrived() {
        let twice = [
            delivery(8, "a", "1", "failed"),
            delivery(10, "a", "1", "delivered"),
            delivery(11, "a", "1", "delivered"),
            delivery(12, "a", "1", "extra"),
        ];
        let seen = account(&[get(2, "a"), get(12, "a"), get(14, "a")], &twice);
        assert_eq!((seen.events, seen.gets_by_timer), (1, 1));
    }
}
