//! What the emulator wrote down.

use jiff::Timestamp;
use serde_json::Value;

use crate::read::{list, owned, text, time};

/// What a job's displayName says: `gb1.K.n.tag`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Marker {
    pub key: String,
    pub n: i64,
}

impl Marker {
    fn read(display_name: &str) -> Option<Self> {
        let mut parts = display_name.split('.');
        if parts.next() != Some("gb1") {
            return None;
        }
        let key = parts.next()?.to_owned();
        let n = parts.next()?.parse().ok()?;
        parts.next().is_some_and(|tag| !tag.is_empty()).then_some(Self { key, n })
    }
}

/// A request for a job. A late execution is no request of its own: it is part of the one that it belongs to.
#[derive(Clone, Debug)]
pub struct Post {
    pub arrival: u64,
    pub arrived: Timestamp,
    pub display_name: String,
    pub marker: Marker,
    pub file: String,
    /// When its caller was answered or left; `None` while it is held.
    pub ended: Option<Timestamp>,
    pub status: Option<u64>,
    pub fault: Option<String>,
    /// Jobs that it made, the late one included.
    pub jobs: Vec<String>,
    /// It may still make one.
    pub under_way: bool,
}

impl Post {
    /// The API itself refused: there is no job, and none will come of it.
    pub fn is_refused(&self) -> bool {
        !self.under_way
            && self.jobs.is_empty()
            && self.status.is_some_and(|s| (400..500).contains(&s) && ![408, 409, 499].contains(&s))
    }

    /// For people: which request.
    pub fn name(&self) -> String {
        format!("request {} ({}, {})", self.arrival, self.display_name, self.file)
    }
}

/// A job that was made.
#[derive(Clone, Debug)]
pub struct Job {
    pub name: String,
    pub marker: Option<Marker>,
    pub state: String,
    /// It found its input, so its rows could be run.
    pub billable: bool,
    pub ended: Option<Timestamp>,
    pub deleted: bool,
    pub cancelled: bool,
    pub created: String,
    pub paid_rows: u64,
}

impl Job {
    pub fn has_ended(&self) -> bool {
        !matches!(self.state.as_str(), "BATCH_STATE_PENDING" | "BATCH_STATE_RUNNING")
    }
}

/// Any other call.
#[derive(Clone, Debug)]
pub struct Call {
    pub seq: u64,
    pub name: String,
    pub path: String,
    pub arrived: Option<Timestamp>,
    pub status: Option<u64>,
}

/// An attempt to deliver an event.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub seq: u64,
    pub ended: Option<Timestamp>,
    pub event_type: String,
    pub job: String,
    pub id: String,
    pub status: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pub posts: Vec<Post>,
    pub jobs: Vec<Job>,
    pub calls: Vec<Call>,
    pub deliveries: Vec<Delivery>,
    /// Name, and when it was deleted.
    pub deleted_files: Vec<(String, Timestamp)>,
}

impl Ledger {
    pub fn read(ledger: &Value) -> Self {
        let mut read = Self::default();
        for entry in list(ledger, "requests") {
            if entry["call"] != "batches.create" {
                read.calls.push(Call {
                    seq: entry["seq"].as_u64().unwrap_or_default(),
                    name: text(entry, "call").to_owned(),
                    path: text(entry, "path").to_owned(),
                    arrived: time(entry, "arrived"),
                    status: entry["status"].as_u64(),
                });
                continue;
            }
            read.post(entry, true);
        }
        for entry in list(ledger, "open").iter().filter(|entry| entry["call"] == "batches.create") {
            read.post(entry, false);
        }
        read.posts.sort_by_key(|post| post.arrival);
        read.jobs = list(ledger, "jobs").iter().map(job).collect();
        read.deliveries = list(ledger, "deliveries").iter().map(delivery).collect();
        let deleted = list(ledger, "deleted_files").iter();
        read.deleted_files =
            deleted.filter_map(|file| Some((owned(file, "name")?, time(file, "deleted")?))).collect();
        read
    }

    /// Entries of one arrival are one request: its end, its late execution, and that it is still under way.
    fn post(&mut self, entry: &Value, ended: bool) {
        let Some(marker) = Marker::read(text(entry, "display_name")) else { return };
        let arrival = entry["arrival"].as_u64().unwrap_or_default();
        let Some(arrived) = time(entry, "arrived") else { return };
        let at = self.posts.iter().position(|post| post.arrival == arrival).unwrap_or_else(|| {
            self.posts.push(Post {
                arrival,
                arrived,
                display_name: text(entry, "display_name").to_owned(),
                marker,
                file: text(entry, "input_file").to_owned(),
                ended: None,
                status: None,
                fault: None,
                jobs: vec![],
                under_way: false,
            });
            self.posts.len() - 1
        });
        let post = &mut self.posts[at];
        post.under_way |= !ended;
        post.jobs.extend(owned(entry, "job"));
        if ended && entry["late"] != true {
            post.ended = time(entry, "ended");
            post.status = entry["status"].as_u64();
            post.fault = owned(entry, "fault");
        }
    }

    /// Whether this job ended without having found its input: it did nothing, and the next attempt may follow.
    pub fn had_no_input(&self, job: &str) -> bool {
        self.jobs.iter().any(|known| known.name == job && !known.billable && known.has_ended())
    }

    pub fn file_deleted(&self, name: &str) -> Option<Timestamp> {
        self.deleted_files.iter().find(|(file, _)| file == name).map(|(_, at)| *at)
    }
}

fn job(job: &Value) -> Job {
    Job {
        name: text(job, "name").to_owned(),
        marker: Marker::read(text(job, "display_name")),
        state: text(job, "state").to_owned(),
        billable: job["billable"] != false,
        ended: time(job, "end_time"),
        deleted: job["deleted"] == true,
        cancelled: job["cancel_asked"] == true,
        created: text(job, "create_time").to_owned(),
        paid_rows: job["paid_rows"].as_u64().unwrap_or_default(),
    }
}

fn delivery(entry: &Value) -> Delivery {
    Delivery {
        seq: entry["seq"].as_u64().unwrap_or_default(),
        ended: time(entry, "ended"),
        event_type: text(entry, "event_type").to_owned(),
        job: text(entry, "batch").to_owned(),
        id: text(entry, "webhook_id").to_owned(),
        status: entry["status"].as_u64(),
    }
}
