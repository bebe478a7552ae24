//! What a controller does: it asks the operator's own `submit` for every decision.

use std::time::Duration;

use crate::control::Control;
use crate::submit::{
    self, Ambiguity, Conclusion, Deletion, History, Listing, Proof, Refusal, Seen, Standing, Step, Timing,
    Verdict, Wish,
};
use crate::world::{Attempt, Budget, Change, Controller, End, File, Job, Key, Post, State, Status, World};

/// As many as there are bits for.
const MOST_ATTEMPTS: u8 = 8;
/// What an object that came back without its status knows of its attempt.
const RESTORED_ATTEMPT: Attempt = Attempt {
    n: 1,
    // That of no process.
    nonce: u8::MAX,
    state: State::Pending,
    files: 0,
    restored: true,
    key: Key::A,
    proof: None,
    job: None,
};

/// One exploration.
#[derive(Clone, Debug)]
pub struct Protocol {
    pub controllers: usize,
    pub budget: Budget,
    pub ambiguity: Ambiguity,
    /// One rule that is broken on purpose.
    pub control: Option<Control>,
    pub timing: Timing,
}

/// What a listing shows. Of what it may show, but need not yet, it is free to show all or nothing, each time anew: so an
/// event that names a job to one controller only is covered too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// None was made, or a page of it failed.
    None,
    /// What it must show.
    Least,
    /// All that is there.
    Most,
    /// The same, and the job whose input file is gone has failed for want of it. Until somebody looks it makes no
    /// difference whether it has.
    InputLost,
}

impl Protocol {
    pub fn new(controllers: usize, budget: Budget) -> Self {
        // Each listing counts: how many there are multiplies states and changes nothing about when they may be.
        let timing = Timing { listings_required: 1, ..Timing::production() };
        Self { controllers, budget, ambiguity: Ambiguity::default(), control: None, timing }
    }

    pub fn breaks(&self, control: Control) -> bool {
        self.control == Some(control)
    }

    /// The attempt as a controller with `key` in hand sees it.
    fn view(&self, attempt: &Attempt, key: Key) -> submit::Attempt {
        submit::Attempt {
            n: i32::from(attempt.n),
            state: attempt.state.into(),
            in_flight: false,
            restored: attempt.restored,
            same_key: attempt.key == key,
            proof: attempt
                .proof
                .map(|by| Proof { same_key: by == key || self.breaks(Control::ListingByAnotherKey) }),
            listings: 0,
            pause: Duration::ZERO,
        }
    }

    fn listing(world: &World, key: Key, look: Look) -> Option<Listing> {
        if look == Look::None || !world.accepts(key) {
            return None;
        }
        let fenced = world.attempt().is_some_and(|a| a.state == State::Fenced);
        let shown = world
            .jobs
            .iter()
            .enumerate()
            .filter(|(_, job)| job.project == key.project() && (job.visible || look != Look::Least));
        let job = |(index, job): (usize, &Job)| submit::Job {
            name: index.to_string(),
            created: index as i128,
            attempt: Some(i32::from(job.n)),
            lost_input: job.lost_input,
        };
        Some(Listing {
            after: if fenced && !world.waited { Duration::ZERO } else { Duration::MAX },
            spaced: true,
            jobs: shown.map(job).collect(),
        })
    }

    /// One pass of an idle controller: read, look, decide. Nothing is written yet.
    pub fn pass(&self, world: &mut World, at: usize, look: Look) -> Option<()> {
        if look == Look::InputLost {
            world.lose_input();
        }
        let (seen, key) = (world.object.clone(), world.secret);
        let Some(status) = seen.status.clone() else {
            let change = if self.breaks(Control::WipeWithoutWait) { Change::Close } else { Change::Restore };
            world.controllers[at] = Controller::Writing { key, change };
            return Some(());
        };
        let view = status.attempt.as_ref().map(|attempt| self.view(attempt, key));
        let facts = Seen {
            listing: Self::listing(world, key, look),
            approved: None,
            wish: if seen.cancelled { Wish::Stop } else { Wish::Go },
            ambiguity: self.ambiguity,
            history: if seen.rolled_back && !self.breaks(Control::RollbackTakenForNew) {
                History::Unknown
            } else {
                History::Known
            },
            lost_input: look != Look::None
                && world.accepts(key)
                && world.has_lost_input()
                && !self.breaks(Control::LostInputStays),
        };
        let change = match submit::step(view.as_ref(), &facts, &self.timing) {
            Step::Intend { n } => {
                return self.intend(world, at, u8::try_from(n).ok()?, status.file, key);
            }
            Step::Adopt { name } => Change::Adopt { job: name.parse().ok()? },
            Step::Fence if self.breaks(Control::ListThenRepost) => Change::Close,
            // The files of a restored attempt are listed before it is fenced, with the same key.
            Step::Fence => match seen.status.as_ref()?.attempt.as_ref()? {
                Attempt { restored: true, .. } => Change::Fence { files: world.files_seen_by(key) },
                attempt => Change::Fence { files: attempt.files },
            },
            Step::Prove if self.breaks(Control::WaitThenRepost) => {
                mark_fence(world);
                Change::Proven
            }
            Step::Prove => {
                let files = seen.status.as_ref()?.attempt.as_ref()?.files;
                world.controllers[at] = Controller::Proving { files, key, stale: false };
                return Some(());
            }
            Step::Close if self.breaks(Control::NeverCloses) => return None,
            Step::Close => Change::Close,
            Step::Quarantine => Change::Quarantine,
            Step::Restore => Change::Restore,
            Step::Rest | Step::Wait(_) | Step::Count | Step::Done | Step::Foreign { .. } | Step::Unproven => {
                return None;
            }
        };
        world.controllers[at] = Controller::Writing { key, change };
        Some(())
    }

    /// The way to an intent: the annotation names the key, the input is there, then the intent itself.
    fn intend(&self, world: &mut World, at: usize, n: u8, staged: Option<u8>, key: Key) -> Option<()> {
        if world.next_nonce >= world.left.attempts.min(MOST_ATTEMPTS) || !world.accepts(key) {
            return None;
        }
        let usable = staged.filter(|file| world.has_file(*file, key));
        world.controllers[at] = if world.object.claimed != key {
            Controller::Writing { key, change: Change::Claim }
        } else if let Some(file) = usable {
            if self.breaks(Control::NoIntent) {
                let nonce = new_nonce(world);
                Controller::Posting { n, nonce, file, key }
            } else {
                Controller::Writing { key, change: Change::Intend { n } }
            }
        } else {
            world.left.uploads = world.left.uploads.checked_sub(1)?;
            let file =
                if self.breaks(Control::SharedFileName) { usize::from(n - 1) } else { world.files.len() };
            while world.files.len() <= file {
                world.files.push(File::default());
            }
            world.files[file].uploading[usize::from(key.project() - 1)] += 1;
            Controller::Uploading { key, file: u8::try_from(file).ok()? }
        };
        Some(())
    }

    pub fn write(&self, world: &mut World, at: usize) -> Option<()> {
        let Controller::Writing { key, change } = world.controllers[at].clone() else { return None };
        world.controllers[at] = Controller::Idle;
        self.written(world);
        if change == Change::Claim {
            world.object.claimed = key;
            return Some(());
        }
        if let Change::Intend { n } = change {
            let file = world.object.status.as_ref()?.file?;
            let nonce = new_nonce(world);
            world.intents |= 1 << nonce;
            world.waited = false;
            world.object.status.as_mut()?.attempt =
                Some(Attempt { n, nonce, files: 1 << file, restored: false, key, ..RESTORED_ATTEMPT });
            world.controllers[at] = Controller::Posting { n, nonce, file, key };
            return Some(());
        }
        let status = world.object.status.get_or_insert_with(Status::default);
        if let Change::Staged { file } = change {
            status.file = Some(file);
            return Some(());
        }
        let restored = Attempt { key: world.object.claimed, ..RESTORED_ATTEMPT };
        let attempt = status.attempt.get_or_insert(restored);
        match change {
            Change::Adopt { job } => (attempt.state, attempt.job) = (State::Recorded, Some(job)),
            Change::Fence { files } => (attempt.state, attempt.files) = (State::Fenced, files),
            Change::Proven => (attempt.proof, world.waited) = (Some(key), false),
            Change::Close => (attempt.state, status.file) = (State::Abandoned, None),
            Change::Quarantine => attempt.state = State::Quarantined,
            Change::Restore | Change::Claim | Change::Staged { .. } | Change::Intend { .. } => {}
        }
        Some(())
    }

    pub fn send(&self, world: &mut World, at: usize) -> Option<()> {
        let Controller::Posting { n, nonce, file, key } = world.controllers[at] else { return None };
        let key = if self.breaks(Control::PostWithAnotherKey) { world.secret } else { key };
        let bit = 1 << nonce;
        world.broken |= world.intents & bit == 0 || world.sent & bit != 0;
        world.sent |= bit;
        world.posts.push(Post { n, nonce, file, key });
        world.controllers[at] = Controller::Waiting { nonce };
        Some(())
    }

    pub fn prove(&self, world: &mut World, at: usize) -> Option<()> {
        let Controller::Proving { files, key, stale } = world.controllers[at] else { return None };
        world.controllers[at] = Controller::Idle;
        if !world.accepts(key) {
            return Some(());
        }
        let there = files & world.files_seen_by(key);
        let project = usize::from(key.project() - 1);
        for (index, file) in world.files.iter_mut().enumerate() {
            file.there[project] &= files & (1 << index) == 0;
        }
        if stale {
            return Some(());
        }
        let attempt = world.attempt()?;
        let deletion = if there == 0 || attempt.restored { Deletion::NotListed } else { Deletion::Deleted };
        if submit::proves(&self.view(attempt, key), deletion) || self.breaks(Control::AnyForbiddenProves) {
            mark_fence(world);
            world.controllers[at] = Controller::Writing { key, change: Change::Proven };
        }
        Some(())
    }

    /// The object is written: whoever has read it before will find that out.
    pub fn written(&self, world: &mut World) {
        if self.breaks(Control::BlindPatch) {
            return;
        }
        for controller in &mut world.controllers {
            match controller {
                Controller::Writing { .. } | Controller::Uploading { .. } => *controller = Controller::Idle,
                Controller::Proving { stale, .. } => *stale = true,
                _ => {}
            }
        }
    }

    /// The poster reads the object, decides, and writes, as often as it takes: in effect at once.
    pub fn conclude(&self, world: &mut World, at: usize) -> Option<()> {
        let Controller::Concluding { nonce, end } = world.controllers[at] else { return None };
        world.controllers[at] = Controller::Idle;
        let verdict = match end {
            End::Yes(job) => Verdict::Yes(job.to_string()),
            End::No => Verdict::No(Refusal::RateLimited { after: None, message: String::new() }),
            End::Forbidden => Verdict::No(Refusal::Forbidden(String::new())),
            End::Unknown => Verdict::Ambiguous(String::new()),
        };
        let mine = nonce.to_string();
        let Some(status) = world.object.status.as_mut() else { return Some(()) };
        let Some(attempt) = status.attempt.as_mut() else { return Some(()) };
        let is_no = matches!(verdict, Verdict::No(_));
        let theirs = if self.breaks(Control::NoClosesAnothers) && is_no {
            mine.clone()
        } else {
            attempt.nonce.to_string()
        };
        let standing = Standing { nonce: &theirs, state: attempt.state.into() };
        match (submit::conclude(Some(standing), &mine, &verdict), end) {
            (Conclusion::Record, End::Yes(job)) => {
                (attempt.state, attempt.job) = (State::Recorded, Some(job));
            }
            (Conclusion::Abandon { forget_file }, _) => {
                attempt.state = State::Abandoned;
                status.file = status.file.filter(|_| !forget_file);
            }
            _ => return Some(()),
        }
        self.written(world);
        Some(())
    }
}

/// The jobs of this moment are the ones that the wait after the fence must show.
fn mark_fence(world: &mut World) {
    world.jobs.iter_mut().for_each(|job| job.before_fence = true);
}

fn new_nonce(world: &mut World) -> u8 {
    let nonce = world.next_nonce;
    world.next_nonce += 1;
    nonce
}
