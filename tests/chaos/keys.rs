//! API keys that change while a request is in doubt: revoked, replaced by one of the same project, replaced by one of
//! another; at C5, C6, C7 and on either side of the fence; with the process dead meanwhile, or only stopped and with the old
//! key in hand.

use std::fmt::{self, Display, Formatter};

use gemini_operator::api::GeminiBatch;
use serde_json::{Value, json};

use crate::run::{
    BATCH, ROWS, assert_answers, create, delete, hit, nothing_left, one_job_each, room_with, start, terminate,
};
use crate::side_by_side::side_by_side;
use crate::support::{PROJECT, batch_condition};

const OTHER_PROJECT: &str = "AIza-canary-of-another-project";
const OTHER_KEY: &str = "AIza-canary-of-the-same-project";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Revoked,
    SameProject,
    OtherProject,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Case {
    /// Where the process is when the key changes.
    point: &'static str,
    /// `kill` or `stop`.
    action: &'static str,
    /// What becomes of the first request for a job.
    post: Option<&'static str>,
    change: Change,
}

impl Display for Case {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}={}", self.change, self.point, self.action)
    }
}

/// In which the intent stands and nothing was sent; the answer was lost; the answer is known and not written; nothing
/// arrived, and the fence comes.
const SITUATIONS: [(&str, Option<&str>); 5] = [
    ("c5-gate.after", None),
    ("c6-post.after", Some("answer")),
    ("c7-answer.after", None),
    ("r1-fence.before", Some("request")),
    ("r1-fence.after", Some("request")),
];

fn cases() -> Vec<Case> {
    let mut cases = vec![];
    for (point, post) in SITUATIONS {
        for action in ["kill", "stop"] {
            for change in [Change::Revoked, Change::SameProject, Change::OtherProject] {
                cases.push(Case { point, action, post, change });
            }
        }
    }
    cases
}

impl Case {
    /// The reason that the status gives for going no further; `None`: it needs nobody.
    fn stops(&self) -> Option<&'static str> {
        match self.change {
            Change::Revoked => Some("CredentialsInvalid"),
            Change::OtherProject => Some("ProjectUnproven"),
            Change::SameProject => {
                // The old key has deleted the file, before the change or after it, and its proof is nobody else's.
                let is_fenced_with_the_old =
                    matches!((self.point, self.action), ("r1-fence.after", _) | ("r1-fence.before", "stop"));
                is_fenced_with_the_old.then_some("ProjectUnproven")
            }
        }
    }

    fn faults(&self) -> Value {
        let post = |drop| json!({"match": {"call": "batches.create"}, "do": {"drop": drop}, "times": 1});
        json!({"rules": self.post.into_iter().map(post).collect::<Vec<_>>(), "jobs": [hold()]})
    }
}

/// Jobs do not end before the status has said what stops it.
fn hold() -> Value {
    json!({"do": {"hold": "pending"}})
}

/// As Gemini says of a key that it does not take.
fn revocation() -> Value {
    let answer = json!({"status": 400, "reason": "API_KEY_INVALID", "message": "API key not valid."});
    json!({"rules": [{"match": {"project": PROJECT}, "do": answer}]})
}

fn gives(batch: &GeminiBatch, reason: &str) -> bool {
    ["Admitted", "Submitted", "Stalled"]
        .into_iter()
        .any(|type_| batch_condition(batch, type_).is_some_and(|condition| condition.reason == reason))
}

async fn run(case: &Case) {
    let more = vec![(OTHER_PROJECT.into(), "elsewhere".into()), (OTHER_KEY.into(), PROJECT.into())];
    let bed = room_with("keys", case.faults(), more).await;
    let armed = format!("{}={}", case.point, case.action);
    let mut first = start(&bed, "first", Some(&armed)).await;
    create(&bed, BATCH, ROWS).await;
    hit(&first, &armed).await;
    match case.change {
        Change::Revoked => bed.emulator.add_faults(&revocation()).await,
        Change::SameProject => bed.make_api_key_as("gemini", OTHER_KEY).await,
        Change::OtherProject => bed.make_api_key_as("gemini", OTHER_PROJECT).await,
    }
    if case.action == "stop" {
        first.signal("CONT");
    } else {
        first = start(&bed, "first", None).await;
    }
    if let Some(reason) = case.stops() {
        bed.wait_batch(BATCH, reason, |batch| gives(batch, reason)).await;
        if case.change == Change::Revoked {
            bed.emulator.set_faults(&json!({"jobs": [hold()]})).await;
        } else {
            bed.make_api_key().await;
        }
    }
    bed.wait_batch(BATCH, "submitted", |batch| {
        batch_condition(batch, "Submitted").is_some_and(|condition| condition.status == "True")
    })
    .await;
    bed.emulator.release_jobs().await;
    bed.wait_complete(BATCH).await;
    assert_answers(&bed, BATCH, ROWS).await;
    delete(&bed, BATCH).await;
    bed.wait_gone(bed.batches(), BATCH).await;
    nothing_left(&bed).await;
    terminate(&mut first).await;
    one_job_each(&bed, 1, ROWS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_that_changes_makes_a_second_job() {
    side_by_side("keys", cases(), run).await;
}
