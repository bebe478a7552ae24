//! A sweep that finds a job as it was: the most frequent pass of all, and the one that must cost nothing. It goes by the
//! object in the cache and by the listing that all jobs of the key share, reads nothing else and writes nothing. Whatever
//! is not as it was is left to an ordinary pass, which reads the object first and finds the same listing.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use kube::Api;

use super::observe::quiet;
use super::plan::{Needs, Plan, Step, needs, newest_run, plan};
use super::{Memory, Subject, plan::Env};
use crate::api::GeminiBatch;
use crate::controller::{Context, Next, is_kept};

/// Passes over a batch that waits for its job; when to come back. `None`: there is more to do.
pub async fn sweep(ctx: &Arc<Context>, api: &Api<GeminiBatch>, cached: &GeminiBatch) -> Option<Next> {
    let uid = cached.metadata.uid.clone().unwrap_or_default();
    let memory = ctx.batch_memory.get(&uid);
    if !is_waiting(cached, &memory) {
        return None;
    }
    let subject = Subject { ctx, api: api.clone(), batch: cached.clone(), read: Instant::now() };
    let now = Timestamp::now();
    let env: Env<'_> = subject.env(now, "");
    let wanted = needs(cached, &memory, &env);
    if !is_sweep(&wanted) {
        return None;
    }
    let seen = quiet(&subject, &wanted).await?;
    let swept = Memory { swept: Some(Timestamp::now()), ..memory };
    let Plan { status, step, next } = plan(cached, &seen, &swept, &env);
    if step != Step::None || !is_kept(cached.status.as_ref(), &status) {
        return None;
    }
    ctx.batch_memory.update(&uid, |m| m.swept = swept.swept);
    Some(next)
}

/// Whether this process has seen the batch before, and left nothing open.
fn is_waiting(batch: &GeminiBatch, memory: &Memory) -> bool {
    let is_known = newest_run(batch).is_some_and(|run| memory.newest == run.attempt);
    let is_open = memory.rest.is_some() || memory.found.is_some() || memory.in_flight.is_some();
    is_known && !is_open && batch.metadata.deletion_timestamp.is_none() && !batch.is_finished()
}

/// Whether nothing is wanted but a sweep that is due.
fn is_sweep(wanted: &Needs) -> bool {
    let &Needs { sweep_since, sweep_from, .. } = wanted;
    let sweep = Needs { credentials: true, tracking: true, sweep_since, sweep_from, ..Needs::default() };
    sweep_since.is_some() && *wanted == sweep
}

#[cfg(test)]
mod tests {
    use super::super::tests::{World, now, recorded};
    use super::*;
    use crate::batch::memory::{Found, Rest};
    use crate::batch::schedule::stimulus;

    #[test]
    fn only_what_waits_and_was_seen_before() {
        let batch = recorded(&World::new(), Some("RUNNING"));
        let known = Memory { newest: 1, ..Memory::default() };
        let found = Found { remote: "batches/a".into(), ended: now(), seen: now(), webhook: "uid".into() };
        let rest = Rest { until: now(), stimulus: stimulus(&batch) };
        let mut deleted = batch.clone();
        deleted.metadata.deletion_timestamp = deleted.metadata.creation_timestamp.clone();
        for (what, batch, memory, expected) in [
            ("known", &batch, known.clone(), true),
            ("after a restart", &batch, Memory::default(), false),
            ("another attempt", &batch, Memory { newest: 2, ..known.clone() }, false),
            ("after a failure", &batch, Memory { rest: Some(rest), ..known.clone() }, false),
            ("to be judged", &batch, Memory { found: Some(found), ..known.clone() }, false),
            ("deleted", &deleted, known, false),
        ] {
            assert_eq!(is_waiting(batch, &memory), expected, "{what}");
        }
    }

    #[test]
    fn only_a_sweep() {
        let sweep = Needs {
            credentials: true,
            tracking: true,
            sweep_since: Some(now()),
            sweep_from: Some(now()),
            ..Needs::default()
        };
        for (what, wanted, expected) in [
            ("a sweep", sweep, true),
            ("nothing is due", Needs { sweep_since: None, ..sweep }, false),
            ("an event asks for a look", Needs { job: true, ..sweep }, false),
            ("its end is known", Needs { ended: true, ..sweep }, false),
            ("a doubt", Needs { listing_since: Some(now()), ..sweep }, false),
        ] {
            assert_eq!(is_sweep(&wanted), expected, "{what}");
        }
    }
}
