//! The protocol's one decision: given the newest attempt and what was seen, what is the next step?
//!
//! ```text
//! None ── Intend ──▶ Pending ── (POST) ──▶ Recorded
//!                       │ doubt: complete listings, adopt what shows
//!                       ▼ nothing for `first_look`
//!                     Fenced ── its input file is proven gone: no late request can do anything any more
//!                       │ wait longer than a listing can lag, list again, adopt what shows
//!                       ▼ still nothing
//!                    Abandoned ── Intend n + 1
//! ```
//! A job that was there and only not listed yet can lose its input file to the fence. It fails then without having done
//! anything, and counts for nothing here: if it is the recorded one, the attempt is closed.
//!
//! The order *fence, then wait, then list* is what makes the next attempt safe: a request that came in before the fence
//! made its job before the fence, so it is listed by the end of the wait; one that comes later finds no input file.

use std::time::Duration;

use super::timing::Timing;

/// Where the newest attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttemptState {
    /// The intent is durable; the request may have been sent.
    Pending,
    /// Given up on: its input file is being deleted, or is proven gone.
    Fenced,
    /// The job's name is recorded.
    Recorded,
    /// There is no job, and there can be none any more.
    Abandoned,
    /// In doubt, and the user wants a person to decide.
    Quarantined,
}

/// The newest attempt, as the status holds it, with its ages as of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its number; numbers only grow.
    pub n: i32,
    pub state: AttemptState,
    /// This very process is sending its request now.
    pub in_flight: bool,
    /// Nothing is known of it but that there was one: the object came back without its status.
    pub restored: bool,
    /// The present API key is the one of the intent.
    pub same_key: bool,
    /// The proof that its input file is gone, if there is one.
    pub proof: Option<Proof>,
    /// Complete listings counted without a match, since the intent or, once there is a proof, since the proof.
    pub listings: u32,
    /// How long to wait still before the next attempt, or before a proof is tried again.
    pub pause: Duration,
}

/// That the input file of a fenced attempt is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The present API key is the one that proved it. What another key lists counts for nothing.
    pub same_key: bool,
}

/// What the user wants of the batch as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A job.
    Go,
    /// No new attempt (`suspend`); an open one is settled.
    Hold,
    /// No job at all (`cancelled`, deletion): an open attempt is fenced at once, and a job that it made is found.
    Stop,
}

/// What to do about a doubt that listings alone do not settle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ambiguity {
    /// Prove the attempt dead, then make the next one.
    #[default]
    ResubmitAfterProof,
    /// Ask a person first.
    Quarantine,
}

/// What was seen of Gemini in this pass, and what people have said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// A complete listing made with the present API key, if one was made.
    pub listing: Option<Listing>,
    /// A person has approved, by annotation, to go on after this attempt number.
    pub approved: Option<i32>,
    pub wish: Wish,
    pub ambiguity: Ambiguity,
    pub history: History,
    /// The recorded job lost its input, see [`Job::lost_input`].
    pub lost_input: bool,
}

/// Whether an object without an attempt can have had one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum History {
    /// This process has known the object from its beginning, and has seen no attempt.
    #[default]
    Known,
    /// The object is older than this process, or has lost an attempt that it had: the cluster's data may have been
    /// restored from before the attempt, and a job may have been made for it.
    Unknown,
}

/// A complete listing of all jobs of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// When it began, since the intent or, once there is a proof, since the proof; not rounded up.
    pub after: Duration,
    /// Far enough from the one that was counted before.
    pub spaced: bool,
    /// Those that carry our K.
    pub jobs: Vec<Job>,
}

/// A job that carries our K.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// `batches/…`
    pub name: String,
    /// Nanoseconds since the epoch, by Gemini's clock.
    pub created: i128,
    /// The tag proves that it is ours, made by this attempt number.
    pub attempt: Option<i32>,
    /// It failed because its input file was gone before it began: no row was run, nothing is paid, and there is nothing
    /// to have of it.
    pub lost_input: bool,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write the intent of attempt `n`, then POST.
    Intend { n: i32 },
    /// No attempt is open, and none is wanted.
    Rest,
    /// Nothing to do until a listing was made, or until this time has passed.
    Wait(Duration),
    /// Record this job as the attempt's.
    Adopt { name: String },
    /// No attempt is known, and yet a job carries our K: go on as with an object that came back without its status.
    Restore,
    /// A job carries our K with a tag that is not ours: stop.
    Foreign { name: String },
    /// A complete listing without a match: count it.
    Count,
    /// Mark the attempt as given up on.
    Fence,
    /// Delete the input file of the fenced attempt and prove it gone: see [`proves`].
    Prove,
    /// There is no job and there can be none: close the attempt, and forget its input file.
    Close,
    /// A person has to decide.
    Quarantine,
    /// What the present API key does not show proves nothing: it is not the key that the attempt was made with.
    Unproven,
    /// The job's name is recorded; submission is over.
    Done,
}

/// Total over its inputs; without an attempt the first one is intended.
pub fn step(attempt: Option<&Attempt>, seen: &Seen, timing: &Timing) -> Step {
    let Some(attempt) = attempt else { return first_attempt(seen, timing) };
    match attempt.state {
        // It was the one job of this batch, and it did nothing. No request that could make another is under way: the
        // attempts before were fenced, and this one's has been executed.
        AttemptState::Recorded if seen.lost_input => return Step::Close,
        AttemptState::Recorded => return Step::Done,
        // The poster itself will tell; should it die, its memory of being in flight dies with it.
        AttemptState::Pending if attempt.in_flight => return Step::Wait(timing.listing_spacing),
        _ => {}
    }
    // Whatever state it is in: a job that shows is the answer.
    if let Some(step) = seen.listing.as_ref().and_then(found) {
        return step;
    }
    match attempt.state {
        AttemptState::Recorded => Step::Done,
        AttemptState::Pending => pending(attempt, seen, timing),
        AttemptState::Quarantined => quarantined(attempt, seen, timing),
        AttemptState::Fenced => fenced(attempt, seen, timing),
        AttemptState::Abandoned => abandoned(attempt, seen, timing),
    }
}

/// Where the past is not known, one look before anything is paid.
fn first_attempt(seen: &Seen, timing: &Timing) -> Step {
    match (next_attempt(0, seen.wish), seen.history, &seen.listing) {
        (Step::Intend { .. }, History::Unknown, None) => Step::Wait(timing.listing_spacing),
        (Step::Intend { .. }, History::Unknown, Some(listing)) if !listing.jobs.is_empty() => Step::Restore,
        (next, _, _) => next,
    }
}

fn next_attempt(newest: i32, wish: Wish) -> Step {
    match wish {
        Wish::Go => Step::Intend { n: newest.saturating_add(1) },
        Wish::Hold | Wish::Stop => Step::Rest,
    }
}

/// The oldest job that is provably ours, of whichever attempt: it is paid. Else a stranger's with our K.
fn found(listing: &Listing) -> Option<Step> {
    let ours = listing.jobs.iter().filter(|job| is_paid(job));
    if let Some(job) = ours.min_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name))) {
        return Some(Step::Adopt { name: job.name.clone() });
    }
    let foreign = listing.jobs.iter().find(|job| job.attempt.is_none())?;
    Some(Step::Foreign { name: foreign.name.clone() })
}

fn is_paid(job: &Job) -> bool {
    job.attempt.is_some() && !job.lost_input
}

fn pending(attempt: &Attempt, seen: &Seen, timing: &Timing) -> Step {
    if seen.wish == Wish::Stop && !attempt.restored {
        return Step::Fence;
    }
    let Some(listing) = &seen.listing else { return Step::Wait(timing.listing_spacing) };
    if attempt.restored {
        // Its file is not known by name; only the very key can prove that none is left.
        return if attempt.same_key { Step::Fence } else { Step::Unproven };
    }
    if seen.ambiguity == Ambiguity::ResubmitAfterProof {
        return match listing {
            Listing { after, .. } if *after >= timing.first_look => Step::Fence,
            Listing { spaced: true, .. } => Step::Count,
            _ => Step::Wait(timing.listing_spacing),
        };
    }
    if !attempt.same_key {
        return Step::Unproven;
    }
    counted(attempt, listing, timing, Step::Quarantine)
}

fn quarantined(attempt: &Attempt, seen: &Seen, timing: &Timing) -> Step {
    let go_on = seen.approved == Some(attempt.n)
        || seen.wish == Wish::Stop
        || seen.ambiguity == Ambiguity::ResubmitAfterProof;
    if go_on { Step::Fence } else { Step::Wait(timing.sweep_tracked) }
}

fn fenced(attempt: &Attempt, seen: &Seen, timing: &Timing) -> Step {
    match (attempt.proof, &seen.listing) {
        (Some(Proof { same_key: true }), Some(listing)) => counted(attempt, listing, timing, Step::Close),
        (Some(Proof { same_key: true }), None) => Step::Wait(timing.listing_spacing),
        // No proof, or one that another key made: its listings do not go together with the present key's.
        _ if attempt.pause.is_zero() => Step::Prove,
        _ => Step::Wait(attempt.pause),
    }
}

/// Counts listings until there are enough of them, the last one begun when all that could be there must show.
fn counted(attempt: &Attempt, listing: &Listing, timing: &Timing, then: Step) -> Step {
    if !listing.spaced {
        return Step::Wait(timing.listing_spacing);
    }
    let enough = attempt.listings.saturating_add(1) >= timing.listings_required;
    if enough && listing.after >= timing.listing_lag { then } else { Step::Count }
}

fn abandoned(attempt: &Attempt, seen: &Seen, timing: &Timing) -> Step {
    match next_attempt(attempt.n, seen.wish) {
        Step::Intend { .. } if !attempt.pause.is_zero() => Step::Wait(attempt.pause),
        // One look before the next: whoever said no may have been wrong.
        Step::Intend { .. } if seen.listing.is_none() => Step::Wait(timing.listing_spacing),
        next => next,
    }
}

/// What became of the input file of a fenced attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// DELETE was answered with 200 in this recovery: this key could see it, and now it is gone.
    Deleted,
    /// A complete list of files, made with the present key, does not hold it.
    NotListed,
}

/// Whether that proves that no request of the attempt can create a job any more.
///
/// A 403 proves nothing, since a missing file and a foreign one are answered alike. Nor does what a key of another
/// project does not list, so a list counts only with the key that the file was uploaded with. A restored attempt has no
/// file by name: one that goes with our prefix may be another attempt's, so there only the list counts.
pub fn proves(attempt: &Attempt, deletion: Deletion) -> bool {
    attempt.same_key || (deletion == Deletion::Deleted && !attempt.restored)
}

/// Jobs that carry our K, are not recorded by any run, and so are one too many: they are cancelled and deleted. Not those
/// that lost their input, which nobody paid.
pub fn duplicates<'a>(jobs: &'a [Job], recorded: &[&str]) -> Vec<&'a str> {
    jobs.iter()
        .filter(|job| is_paid(job) && !recorded.contains(&job.name.as_str()))
        .map(|job| job.name.as_str())
        .collect()
}

#[cfg(test)]
mod tests;
