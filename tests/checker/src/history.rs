//! What happened to each GeminiBatch, by the API server's own log.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

use crate::read::{is_final, list, owned, text, time};

const FINALIZER: &str = "gemini-operator.io/cleanup";

/// Whose request it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    Controller,
    Receiver,
    Other(String),
}

impl Who {
    fn read(user: &str) -> Self {
        let account = user.strip_prefix("system:serviceaccount:").filter(|a| !a.starts_with("kube-system:"));
        match account {
            Some(account) if account.ends_with("controller") => Self::Controller,
            Some(account) if account.ends_with("receiver") => Self::Receiver,
            _ => Self::Other(user.to_owned()),
        }
    }

    pub fn is_operator(&self) -> bool {
        !matches!(self, Self::Other(_))
    }
}

/// A finished request that would change something.
#[derive(Clone, Debug)]
pub struct Write {
    pub received: Timestamp,
    pub ended: Timestamp,
    pub who: Who,
    pub verb: String,
    /// `geminibatches/status`
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub code: u64,
    pub body: Value,
}

impl Write {
    fn read(event: &Value) -> Option<Self> {
        let object = &event["objectRef"];
        let verb = text(event, "verb");
        if !matches!(verb, "create" | "update" | "patch" | "delete" | "deletecollection") {
            return None;
        }
        let resource = match object["subresource"].as_str() {
            Some(sub) => format!("{}/{sub}", text(object, "resource")),
            None => text(object, "resource").to_owned(),
        };
        Some(Self {
            received: time(event, "requestReceivedTimestamp")?,
            ended: time(event, "stageTimestamp")?,
            who: Who::read(text(&event["user"], "username")),
            verb: verb.to_owned(),
            resource,
            namespace: text(object, "namespace").to_owned(),
            name: text(object, "name").to_owned(),
            code: event["responseStatus"]["code"].as_u64().unwrap_or_default(),
            body: event["requestObject"].clone(),
        })
    }

    pub fn is_done(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// Whether it was done is not known from its answer.
    fn may_be_done(&self) -> bool {
        self.is_done() || self.code == 0 || self.code >= 499
    }

    fn version(&self) -> Option<u64> {
        self.body["metadata"]["resourceVersion"].as_str()?.parse().ok()
    }
}

/// An attempt to submit, as a status tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub name: String,
    pub attempt: i64,
    pub submission: String,
    pub nonce: String,
    pub marker: String,
    pub file: String,
    pub job: Option<String>,
    pub state: Option<String>,
}

pub fn runs_of(status: &Value) -> Vec<Run> {
    let read = |run: &Value| Run {
        name: text(run, "name").to_owned(),
        attempt: run["attempt"].as_i64().unwrap_or_default(),
        submission: text(run, "submission").to_owned(),
        nonce: text(run, "nonce").to_owned(),
        marker: text(run, "marker").to_owned(),
        file: text(run, "inputFile").to_owned(),
        job: owned(run, "remoteName"),
        state: owned(run, "state"),
    };
    list(status, "runs").iter().map(read).collect()
}

/// A status that was written.
#[derive(Clone, Debug)]
pub struct Written {
    pub received: Timestamp,
    pub ended: Timestamp,
    pub status: Value,
    pub runs: Vec<Run>,
    /// Somebody else did it: what stood there before does not count any more.
    pub is_reset: bool,
    /// The first one after an older state was put back.
    pub is_anew: bool,
}

/// A hint that the receiver stored, or may have stored.
#[derive(Clone, Debug)]
pub struct Hint {
    pub received: Timestamp,
    pub job: String,
    /// Of the event.
    pub id: String,
    /// It was answered; else what stands later tells.
    pub is_done: bool,
}

/// One object, from its first status to its end.
#[derive(Clone, Debug, Default)]
pub struct Life {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// The newest that is known of it.
    pub spec: Value,
    pub statuses: Vec<Written>,
    /// Writes of the controller whose outcome is not known.
    pub uncertain: Vec<Written>,
    pub hints: Vec<Hint>,
    /// The id of the event that stands in it in the end.
    pub last_event: Option<String>,
    pub deleted: Option<Timestamp>,
    pub released: Option<Timestamp>,
    /// It is there in the end.
    pub exists: bool,
}

impl Life {
    pub fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// When it came to its end, and with which status.
    pub fn end(&self) -> Option<&Written> {
        self.statuses.iter().find(|w| is_final(&w.status))
    }

    /// When a job's name was first recorded here.
    pub fn recorded(&self, job: &str) -> Option<Timestamp> {
        let has = |w: &&Written| w.runs.iter().any(|run| run.job.as_deref() == Some(job));
        self.statuses.iter().find(has).map(|w| w.received)
    }

    /// The hint was stored: by its answer, or because it stands later, where the controller carries it along.
    pub fn stands(&self, hint: &Hint) -> bool {
        let carried =
            |w: &Written| w.received >= hint.received && w.status["lastEvent"]["id"] == hint.id.as_str();
        hint.is_done
            || self.last_event.as_deref() == Some(hint.id.as_str())
            || self.statuses.iter().chain(&self.uncertain).any(carried)
    }

    /// Its statuses, each with the one before. The first after a reset has none, nor has one after a write of which nobody
    /// knows whether it was applied.
    pub fn steps(&self) -> impl Iterator<Item = (Option<&Written>, &Written)> {
        self.statuses.iter().enumerate().map(|(at, now)| {
            let before = at.checked_sub(1).map(|at| &self.statuses[at]);
            let before = before.filter(|_| !now.is_reset && !now.is_anew);
            let before = before.filter(|before| {
                !self.uncertain.iter().any(|w| before.received <= w.received && w.received <= now.received)
            });
            (before.filter(|w| !w.is_reset), now)
        })
    }
}

/// Positions of lives.
type Index = BTreeMap<String, BTreeSet<usize>>;

/// All objects and all writes.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub lives: Vec<Life>,
    pub writes: Vec<Write>,
    keys: Index,
    jobs: Index,
    /// The last moment that anything tells of.
    pub last: Option<Timestamp>,
}

impl History {
    /// What was asked for after `until` is left out: the rest of the evidence does not know of it.
    pub fn read(audit: &[Value], objects: &[Value], until: Option<Timestamp>) -> Self {
        let is_known = |write: &Write| until.is_none_or(|until| write.received <= until);
        let mut writes: Vec<Write> = audit.iter().filter_map(Write::read).filter(is_known).collect();
        writes.sort_by_key(|write| write.ended);
        let mut places: BTreeMap<(String, String), Vec<&Write>> = BTreeMap::new();
        for write in writes.iter().filter(|w| w.resource.starts_with("geminibatches")) {
            places.entry((write.namespace.clone(), write.name.clone())).or_default().push(write);
        }
        let mut lives: BTreeMap<(String, String), Vec<Life>> = BTreeMap::new();
        for (place, mut of_place) in places.clone().into_iter().filter(|((_, name), _)| !name.is_empty()) {
            let all = places.get(&(place.0.clone(), String::new())).into_iter().flatten();
            of_place.extend(all.filter(|w| w.verb == "deletecollection"));
            in_order(&mut of_place);
            let lives = lives.entry(place.clone()).or_default();
            for write in of_place {
                note(lives, write, &place);
            }
        }
        for object in objects.iter().filter(|object| object["kind"] == "GeminiBatch") {
            let metadata = &object["metadata"];
            let place = (text(metadata, "namespace").to_owned(), text(metadata, "name").to_owned());
            let life = of_uid(lives.entry(place).or_default(), &place_of(metadata), text(metadata, "uid"));
            life.exists = true;
            life.spec = object["spec"].clone();
            life.last_event = owned(&object["status"]["lastEvent"], "id");
            life.deleted = life.deleted.or(time(metadata, "deletionTimestamp"));
            if life.statuses.is_empty() && object["status"].is_object() {
                // Nothing says when it was written.
                let status = object["status"].clone();
                let (at, runs) = (Timestamp::MAX, runs_of(&status));
                life.statuses.push(Written {
                    received: at,
                    ended: at,
                    status,
                    runs,
                    is_reset: false,
                    is_anew: false,
                });
            }
        }
        let last = audit.iter().filter_map(|event| time(event, "stageTimestamp")).max();
        let lives: Vec<Life> = lives.into_values().flatten().filter(|life| !life.uid.is_empty()).collect();
        let (mut keys, mut jobs) = (Index::new(), Index::new());
        for (at, life) in lives.iter().enumerate() {
            for written in &life.statuses {
                // It may be another one after a reset.
                keys.entry(text(&written.status["identity"], "submitKey").to_owned()).or_default().insert(at);
                for job in written.runs.iter().filter_map(|run| run.job.clone()) {
                    jobs.entry(job).or_default().insert(at);
                }
            }
        }
        Self { lives, writes, keys, jobs, last }
    }

    /// An older state of everything was put back at this moment.
    pub fn begin_anew(&mut self, at: Timestamp) {
        for life in &mut self.lives {
            if let Some(first) = life.statuses.iter_mut().find(|w| w.received >= at) {
                first.is_anew = true;
            }
            // What was deleted since then is there again.
            life.deleted = life.deleted.filter(|deleted| *deleted >= at);
            life.released = life.released.filter(|released| *released >= at);
        }
    }

    /// Whose K this is: several objects one after the other, where one was restored.
    pub fn of_key(&self, key: &str) -> impl Iterator<Item = &Life> + use<'_> {
        self.keys.get(key).into_iter().flatten().map(|at| &self.lives[*at])
    }

    /// Who has recorded this job.
    pub fn of_job(&self, job: &str) -> impl Iterator<Item = &Life> + use<'_> {
        self.jobs.get(job).into_iter().flatten().map(|at| &self.lives[*at])
    }
}

fn place_of(metadata: &Value) -> (String, String) {
    (text(metadata, "namespace").to_owned(), text(metadata, "name").to_owned())
}

/// The log has the order in which answers were done. Two writes that overlapped may have been applied in the other one:
/// the version that each was made against tells.
fn in_order(writes: &mut [&Write]) {
    writes.sort_by_key(|write| write.ended);
    let mut swapped = true;
    while swapped {
        swapped = false;
        for at in 1..writes.len() {
            let (a, b) = (writes[at - 1], writes[at]);
            let overlap = a.received <= b.ended && b.received <= a.ended;
            if overlap && b.version().is_some() && a.version() > b.version() {
                writes.swap(at - 1, at);
                swapped = true;
            }
        }
    }
}

fn of_uid<'a>(all: &'a mut Vec<Life>, place: &(String, String), uid: &str) -> &'a mut Life {
    let at = all.iter().position(|life| life.uid == uid).unwrap_or_else(|| {
        let (namespace, name) = place.clone();
        all.push(Life { namespace, name, uid: uid.to_owned(), ..Life::default() });
        all.len() - 1
    });
    &mut all[at]
}

fn note(all: &mut Vec<Life>, write: &Write, place: &(String, String)) {
    if write.resource == "geminibatches/status" {
        status(all, write, place);
        return;
    }
    let Some(life) = all.last_mut().filter(|_| write.is_done()) else { return };
    match write.verb.as_str() {
        "delete" | "deletecollection" => {
            life.deleted.get_or_insert(write.received);
        }
        "patch" if write.who == Who::Controller => {
            let finalizers = &write.body["metadata"]["finalizers"];
            if finalizers.as_array().is_some_and(|all| all.iter().all(|f| f != FINALIZER)) {
                life.released.get_or_insert(write.ended);
            }
        }
        _ => {}
    }
}

fn status(all: &mut Vec<Life>, write: &Write, place: &(String, String)) {
    let written = Written {
        received: write.received,
        ended: write.ended,
        status: write.body["status"].clone(),
        runs: runs_of(&write.body["status"]),
        is_reset: false,
        is_anew: false,
    };
    match &write.who {
        Who::Controller => {
            let metadata = &write.body["metadata"];
            let life = of_uid(all, place, text(metadata, "uid"));
            if write.is_done() {
                life.spec = write.body["spec"].clone();
                life.statuses.push(written);
            } else if write.may_be_done() {
                life.uncertain.push(written);
            }
        }
        Who::Receiver => {
            let event = &written.status["lastEvent"];
            let uid = text(&write.body["metadata"], "uid");
            if write.may_be_done() && event.is_object() {
                let (job, id) = (text(event, "remoteName").to_owned(), text(event, "id").to_owned());
                let hint = Hint { received: write.received, job, id, is_done: write.is_done() };
                of_uid(all, place, uid).hints.push(hint);
            }
        }
        Who::Other(_) => {
            if let Some(life) = all.last_mut().filter(|_| write.is_done()) {
                life.statuses.push(Written { is_reset: true, ..written });
            }
        }
    }
}
