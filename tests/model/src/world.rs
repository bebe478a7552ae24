//! The world that the protocol lives in: what etcd, Gemini, the Secret and each controller hold.
//!
//! Identities of controllers, resource versions and times are left out where they would only multiply states: whoever
//! has read an object that somebody else then writes is told so at once (its own write would fail), a post finds its
//! poster by its nonce, and controllers are kept sorted, since they differ in nothing else.

use crate::submit::AttemptState;

/// An API key. `A` and `B` belong to one Google project, `C` to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    A,
    B,
    C,
}

impl Key {
    pub fn project(self) -> u8 {
        match self {
            Self::A | Self::B => 1,
            Self::C => 2,
        }
    }
}

/// What etcd holds of the batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Object {
    /// The annotation: the key that submissions are made with. It survives what the status does not.
    pub claimed: Key,
    /// `spec.cancelled`.
    pub cancelled: bool,
    /// `None`: lost, as when a backup is restored without its status.
    pub status: Option<Status>,
    /// The cluster's data went back to before the first attempt, and the controllers know that this can have been.
    pub rolled_back: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Status {
    /// `status.input.file`.
    pub file: Option<u8>,
    pub attempt: Option<Attempt>,
}

/// The newest attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attempt {
    pub n: u8,
    pub nonce: u8,
    pub state: State,
    /// Its input file; of a restored attempt, all that could be it. As bits.
    pub files: u8,
    /// Nothing is known of it but that there was one.
    pub restored: bool,
    pub key: Key,
    /// The key that proved the file gone.
    pub proof: Option<Key>,
    /// Index of the recorded job.
    pub job: Option<u8>,
}

/// [`AttemptState`], with an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    Pending,
    Fenced,
    Recorded,
    Abandoned,
    Quarantined,
}

impl From<State> for AttemptState {
    fn from(state: State) -> Self {
        match state {
            State::Pending => Self::Pending,
            State::Fenced => Self::Fenced,
            State::Recorded => Self::Recorded,
            State::Abandoned => Self::Abandoned,
            State::Quarantined => Self::Quarantined,
        }
    }
}

/// A file name at Gemini.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct File {
    /// Uploads under this name that have begun and not ended, by project.
    pub uploading: [u8; 2],
    /// The projects in which the file is there.
    pub there: [bool; 2],
}

/// A job, created and so paid, unless it loses its input before it begins.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Job {
    pub n: u8,
    pub project: u8,
    pub file: u8,
    /// It has failed because its input file was gone.
    pub lost_input: bool,
    /// It was there when a fence was last proven, so the wait after the fence shows it.
    pub before_fence: bool,
    /// Every listing shows it.
    pub visible: bool,
}

/// A request to create a job that has left its poster and has not been decided on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Post {
    pub n: u8,
    pub nonce: u8,
    pub file: u8,
    pub key: Key,
}

/// How a POST ended for its poster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    /// Index of the job.
    Yes(u8),
    /// Refused for quota or the like.
    No,
    /// 403.
    Forbidden,
    Unknown,
}

/// Where a controller stands in its pass.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Controller {
    Idle,
    /// Waits for its upload.
    Uploading {
        key: Key,
        file: u8,
    },
    /// Has decided on a write of the object that it read, which is the present one.
    Writing {
        key: Key,
        change: Change,
    },
    /// Its intent is durable; the request has not left yet.
    Posting {
        n: u8,
        nonce: u8,
        file: u8,
        key: Key,
    },
    /// Waits for the answer.
    Waiting {
        nonce: u8,
    },
    /// Has to record how it ended.
    Concluding {
        nonce: u8,
        end: End,
    },
    /// Is about to delete the files of a fenced attempt.
    Proving {
        files: u8,
        key: Key,
        /// The object was written since it was read.
        stale: bool,
    },
}

/// A write of the object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Change {
    /// The status of an object that had none.
    Restore,
    /// The annotation's key.
    Claim,
    /// The uploaded file.
    Staged {
        file: u8,
    },
    Intend {
        n: u8,
    },
    Adopt {
        job: u8,
    },
    /// With the files that a restored attempt may have had.
    Fence {
        files: u8,
    },
    Proven,
    Close,
    Quarantine,
}

/// How much may still go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Budget {
    pub crashes: u8,
    /// Requests or answers lost, or not waited for.
    pub losses: u8,
    /// Jobs that fail because the fence took their input file.
    pub input_losses: u8,
    /// Refusals without a reason that lasts (429).
    pub refusals: u8,
    /// Changes of the Secret.
    pub key_changes: u8,
    pub revocations: u8,
    pub wipes: u8,
    pub rollbacks: u8,
    /// `spec.cancelled` set.
    pub cancellations: u8,
    pub uploads: u8,
    pub attempts: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub object: Object,
    pub secret: Key,
    /// Key A is not accepted any more.
    pub revoked: bool,
    pub files: Vec<File>,
    pub jobs: Vec<Job>,
    pub posts: Vec<Post>,
    pub controllers: Vec<Controller>,
    pub left: Budget,
    /// The wait after the fence of the attempt in the status has passed.
    pub waited: bool,
    /// Nonces of intents that were durable, and of requests that were sent, as bits; the next free one.
    pub intents: u8,
    pub sent: u8,
    pub next_nonce: u8,
    /// Something happened that must not: a request without its durable intent, or twice for one.
    pub broken: bool,
}

impl World {
    pub fn new(controllers: usize, left: Budget) -> Self {
        Self {
            object: Object {
                claimed: Key::A,
                cancelled: false,
                status: Some(Status::default()),
                rolled_back: false,
            },
            secret: Key::A,
            revoked: false,
            files: vec![],
            jobs: vec![],
            posts: vec![],
            controllers: vec![Controller::Idle; controllers],
            left,
            waited: false,
            intents: 0,
            sent: 0,
            next_nonce: 0,
            broken: false,
        }
    }

    pub fn attempt(&self) -> Option<&Attempt> {
        self.object.status.as_ref()?.attempt.as_ref()
    }

    /// Whether Gemini accepts the key.
    pub fn accepts(&self, key: Key) -> bool {
        !(self.revoked && key == Key::A)
    }

    /// Whether a file is there for this key.
    pub fn has_file(&self, file: u8, key: Key) -> bool {
        self.files.get(usize::from(file)).is_some_and(|f| f.there[usize::from(key.project() - 1)])
    }

    /// All files that this key lists, as bits.
    pub fn files_seen_by(&self, key: Key) -> u8 {
        (0..8).filter(|file| self.has_file(*file, key)).fold(0, |seen, file| seen | 1 << file)
    }

    /// A backup is put back when nothing is under way and every listing shows what there is.
    pub fn is_quiet(&self) -> bool {
        let is_under_way = |c: &Controller| {
            matches!(
                c,
                Controller::Posting { .. } | Controller::Waiting { .. } | Controller::Concluding { .. }
            )
        };
        self.posts.is_empty() && !self.controllers.iter().any(is_under_way)
    }

    pub fn paid_jobs(&self) -> usize {
        self.jobs.iter().filter(|job| !job.lost_input).count()
    }

    /// Whether it had begun when its file went is not known, so it may have lost it or not.
    pub fn may_lose_input(&self, job: &Job) -> bool {
        self.left.input_losses > 0 && !job.lost_input && self.files[usize::from(job.file)].there == [false; 2]
    }

    /// There is one at most, as one at most was paid.
    pub fn lose_input(&mut self) {
        if let Some(at) = self.jobs.iter().position(|job| self.may_lose_input(job)) {
            self.left.input_losses -= 1;
            self.jobs[at].lost_input = true;
        }
    }

    /// Whether the recorded job has failed because its input file was gone.
    pub fn has_lost_input(&self) -> bool {
        let job = self.attempt().filter(|a| a.state == State::Recorded).and_then(|a| a.job);
        job.and_then(|job| self.jobs.get(usize::from(job))).is_some_and(|job| job.lost_input)
    }

    /// The submission has come to its end: a job is recorded that can do its work, or a person has to decide.
    pub fn is_settled(&self) -> bool {
        self.attempt().is_some_and(|a| {
            (a.state == State::Recorded && !self.has_lost_input())
                || a.state == State::Quarantined
                || (a.state == State::Abandoned && self.object.cancelled)
        }) || (self.object.cancelled && self.object.status.as_ref().is_some_and(|s| s.attempt.is_none()))
    }
}
