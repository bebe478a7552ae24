//! A doubt from the lost answer to its end, pass by pass, with time going on as the plans say.

use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::api::batch::Submission;
use crate::batch::{memory, record};
use crate::submit::Job;

/// One batch in one process, seen from outside.
struct Story {
    world: World,
    batch: GeminiBatch,
    memory: memory::Memory,
    start: Timestamp,
    passed: Duration,
    /// Fingerprint of the key in the Secret.
    key: &'static str,
    /// Jobs that a listing shows.
    jobs: Vec<Job>,
    /// Seconds since the start, and what was planned then, without what changes nothing.
    told: Vec<(u64, String)>,
}

impl Story {
    fn new(batch: impl Fn(&World) -> GeminiBatch) -> Self {
        let world = World::new();
        let batch = batch(&world);
        Self {
            world,
            batch,
            memory: memory::Memory::default(),
            start: now(),
            passed: Duration::ZERO,
            key: FINGERPRINT,
            jobs: vec![],
            told: vec![],
        }
    }

    fn submission(&self) -> Option<Submission> {
        self.batch.status.as_ref()?.runs.last().map(|run| run.submission)
    }

    /// One pass: look, plan, write, act. Returns when to come back.
    fn pass(&mut self) -> Next {
        let uptime = UPTIME + self.passed;
        let now = crate::controller::after(self.start, self.passed);
        let env = Env { uptime, ..self.world.at(now) };
        let newest = self.batch.status.as_ref().and_then(|s| s.runs.last()).cloned();
        self.memory.watch(newest.as_ref(), now, uptime);
        let needs = needs(&self.batch, &self.memory, &env);
        let mut seen = admitted();
        seen.credentials = needs.credentials.then(|| Credentials::Ready { fingerprint: self.key.into() });
        if needs.listing_since.is_some() {
            self.memory.listed(uptime);
            seen.listing = Some(Listed { started: now, jobs: self.jobs.clone() });
            seen.files = needs.files.then(|| vec!["files/gb-x".to_owned()]);
        }
        let planned = plan(&self.batch, &seen, &self.memory, &env);
        let before = (self.submission(), newest.and_then(|run| run.listings));
        self.batch.status = Some(planned.status);
        let after =
            (self.submission(), self.batch.status.as_ref().unwrap().runs.last().unwrap().listings.clone());
        if after.1 != before.1 {
            self.memory.counted(uptime);
        }
        if after != before || planned.step != Step::None {
            let what = format!("{:?} {:?}", after.0.unwrap(), planned.step);
            self.told.push((self.passed.as_secs(), what));
        }
        if let Step::Fence { .. } = planned.step {
            let status = record::fenced(&self.batch, self.key, self.world.timing.listing_lag, now);
            self.batch.status = Some(status);
        }
        planned.next
    }

    /// Until nothing is in doubt any more, or for two hours.
    fn run(&mut self) {
        let patience = self.passed + Duration::from_hours(2);
        while self.passed < patience
            && !matches!(self.submission(), Some(Submission::Abandoned | Submission::Recorded))
        {
            match self.pass() {
                Next::Now => {}
                Next::After(pause) => self.passed += pause,
                Next::Await => return,
            }
        }
    }

    fn reason(&self) -> &str {
        &get(&self.batch.status.as_ref().unwrap().conditions, "Submitted").unwrap().reason
    }
}

fn told(story: &Story) -> Vec<(u64, &str)> {
    story.told.iter().map(|(at, what)| (*at, what.as_str())).collect()
}

#[test]
fn a_request_that_never_arrived_is_fenced_waited_for_and_followed_by_another() {
    let mut story = Story::new(|world| pending(world, Duration::ZERO));
    story.run();
    let fence = "Fenced Fence { files: [\"files/gb-x\"] }";
    assert_eq!(
        told(&story),
        [
            (300, "Pending None"),
            (600, "Pending None"),
            (601, "Fenced None"),
            (601, fence),
            (901, "Fenced None"),
            (1201, "Fenced None"),
            (1501, "Abandoned None"),
        ],
        "ten minutes of looking, the fence, fifteen minutes of looking"
    );
    // One more look, then the next attempt, with another file.
    let next = story.pass();
    assert_eq!((next, story.told.last().unwrap().1.as_str()), (Next::Now, "Abandoned Stage"));
    assert_eq!(story.batch.status.as_ref().unwrap().input.as_ref().unwrap().file, None);
}

#[test]
fn a_job_that_shows_at_last_is_adopted_at_any_time() {
    for shows_after in [0, 400, 700, 1300] {
        let mut story = Story::new(|world| pending(world, Duration::ZERO));
        while story.passed < Duration::from_secs(shows_after) {
            if let Next::After(pause) = story.pass() {
                story.passed += pause;
            }
        }
        story.jobs =
            vec![Job { name: "batches/late".into(), created: 0, attempt: Some(1), lost_input: false }];
        story.run();
        assert_eq!(story.submission(), Some(Submission::Recorded), "{shows_after}");
        let run = story.batch.status.as_ref().unwrap().runs[0].clone();
        assert_eq!(run.remote_name.as_deref(), Some("batches/late"));
    }
}

#[test]
fn a_restart_neither_shortens_nor_repeats_the_wait() {
    let mut story = Story::new(|world| pending(world, Duration::ZERO));
    while story.passed < Duration::from_secs(1000) {
        if let Next::After(pause) = story.pass() {
            story.passed += pause;
        }
    }
    story.memory = memory::Memory::default();
    story.run();
    assert_eq!(story.submission(), Some(Submission::Abandoned));
    let closed = story.told.last().unwrap().0;
    assert!((1501..=1501 + 2 * 300).contains(&closed), "{closed}");
}

#[test]
fn a_clock_that_jumps_ahead_does_not_shorten_the_wait() {
    let mut story = Story::new(|world| pending(world, Duration::ZERO));
    while story.submission() != Some(Submission::Fenced) || story.memory.doubt.is_none() {
        if let Next::After(pause) = story.pass() {
            story.passed += pause;
        }
    }
    story.pass();
    let fenced_at = story.passed;
    story.start = crate::controller::after(story.start, Duration::from_hours(24 * 365 * 10));
    story.run();
    assert_eq!(story.submission(), Some(Submission::Abandoned));
    let waited = story.passed.saturating_sub(fenced_at);
    assert!(waited >= story.world.timing.listing_lag, "{waited:?}");
}

#[test]
fn another_key_stops_it_and_the_right_one_lets_it_go_on() {
    let mut story = Story::new(|world| pending(world, Duration::ZERO));
    story.batch.spec.ambiguity = crate::api::batch::Ambiguity::Quarantine;
    story.key = "another";
    story.run();
    assert_eq!((story.submission(), story.reason()), (Some(Submission::Pending), "ProjectUnproven"));
    story.key = FINGERPRINT;
    story.run();
    assert_eq!((story.submission(), story.reason()), (Some(Submission::Quarantined), "Quarantined"));
    let message = &get(&story.batch.status.as_ref().unwrap().conditions, "Submitted").unwrap().message;
    assert!(message.contains("kubectl annotate geminibatch tickets"), "{message}");
}

/// The listings so far were made with a key that sees nothing: with the right one back, the job is looked for before its
/// input file goes.
#[test]
fn no_file_is_deleted_before_the_key_that_could_see_a_job_has_looked() {
    let mut story = Story::new(|world| pending(world, Duration::ZERO));
    story.batch.status.as_mut().unwrap().runs[0].submission = Submission::Fenced;
    let run = story.batch.status.as_ref().unwrap().runs[0].clone();
    let job = Job { name: "batches/1".into(), created: 1, attempt: Some(1), lost_input: false };
    story.jobs = vec![job];
    story.passed = Duration::from_mins(20);
    let uptime = UPTIME + story.passed;
    // No listing is due, and a try to prove the fence is.
    let now = crate::controller::after(story.start, story.passed);
    story.memory.watch(Some(&run), now, uptime);
    story.memory.listed(uptime);
    story.memory.unproven = Some(uptime.saturating_sub(story.world.timing.listing_spacing));
    story.pass();
    assert_eq!(told(&story), [(1200, "Recorded None")]);
}

#[test]
fn an_object_that_came_back_without_status_looks_for_its_job_first() {
    let restored = |world: &World| {
        let batch = GeminiBatch { status: None, ..claimed(world) };
        GeminiBatch { status: Some(world.plan(&batch, &Observed::default()).status), ..batch }
    };
    let mut story = Story::new(restored);
    story.run();
    assert_eq!(
        told(&story),
        [
            (0, "Fenced None"),
            (0, "Fenced Fence { files: [\"files/gb-x\"] }"),
            (300, "Fenced None"),
            (600, "Fenced None"),
            (900, "Abandoned None"),
        ]
    );
    let mut foreign = Story::new(restored);
    foreign.key = "another";
    foreign.run();
    assert_eq!((foreign.submission(), foreign.reason()), (Some(Submission::Pending), "ProjectUnproven"));
}

#[test]
fn a_copy_under_another_name_has_a_key_of_its_own() {
    let world = World::new();
    let mut copy = GeminiBatch { status: None, ..claimed(&world) };
    copy.metadata.name = Some("copy".into());
    copy.metadata.uid = Some("another".into());
    let status = world.plan(&copy, &Observed::default()).status;
    assert_eq!(status.identity.unwrap().submit_key, submit::submit_key("another"));
    assert_eq!(status.runs, []);
}

#[test]
fn a_cancelled_doubt_is_fenced_at_once_and_ends() {
    let mut story = Story::new(|world| pending(world, Duration::ZERO));
    story.batch.spec.cancelled = true;
    story.run();
    assert_eq!(told(&story)[0], (0, "Fenced None"));
    assert_eq!(story.submission(), Some(Submission::Abandoned));
    story.pass();
    assert!(story.batch.is_finished());
    assert!(story.passed < Duration::from_mins(16), "{:?}", story.passed);
}

/// The fence took the input of a job that no listing had shown: it is recorded, and then does nothing.
#[test]
fn a_recorded_job_that_lost_its_input_is_followed_by_another_attempt() {
    let world = World::new();
    let mut failed = some_job(gemini::State::Failed);
    failed.responses_file = None;
    failed.input_file = Some("files/gb-x".into());
    failed.error = Some(("7".into(), "You do not have permission to access the File gb-x".into()));
    let look = |job: &gemini::Batch| Observed {
        credentials: admitted().credentials,
        job: Some(JobFacts::Found(Box::new(job.clone()))),
        ..Observed::default()
    };
    let remembered = Memory { job: Some(failed.clone()), looked: Some(now()), ..Memory::default() };
    let batch = recorded(&world, Some("PENDING"));
    for (how, seen, memory) in [
        ("a look", look(&failed), Memory::default()),
        ("a look before this pass", Observed { job: None, ..look(&failed) }, remembered),
    ] {
        let planned = plan(&batch, &seen, &memory, &world.at(now()));
        let (run, input) = (&planned.status.runs[0], planned.status.input.as_ref().unwrap());
        assert_eq!((planned.step, planned.next), (Step::None, Next::Now), "{how}");
        assert_eq!((run.submission, run.remote_name.as_deref()), (Submission::Abandoned, Some("batches/a")));
        assert_eq!(input.file, None, "it is uploaded again");
        let message = &get(&planned.status.conditions, "Submitted").unwrap().message;
        assert!(message.contains("batches/a") && message.contains("nothing is paid"), "{message}");
    }

    // Its record is still listed, in a listing that may be older than the look: the next attempt begins all the same.
    let looked = Memory { job: Some(failed.clone()), looked: Some(now()), ..Memory::default() };
    for (lost_input, memory) in [(true, Memory::default()), (false, looked)] {
        let mut story = Story { memory, ..Story::new(|_| batch.clone()) };
        story.batch.status = Some(world.plan(&batch, &look(&failed)).status);
        story.jobs = vec![Job { name: "batches/a".into(), created: 0, attempt: Some(1), lost_input }];
        while story.told.is_empty() {
            if let Next::After(pause) = story.pass() {
                story.passed += pause;
            }
        }
        assert_eq!(story.told.last().unwrap().1, "Abandoned Stage", "listed as lost: {lost_input}");
    }

    // Any other failure is an end.
    failed.error = Some(("3".into(), "the rows of gb-x are not JSON".into()));
    let planned = world.plan(&batch, &look(&failed));
    assert_eq!(planned.status.runs[0].submission, Submission::Recorded);
}
