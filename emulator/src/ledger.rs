//! Everything that happened, for whoever judges a client afterwards. It never holds keys or secrets.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::calls::Call;
use crate::clock::{Nanos, real, rfc3339};

/// A call on its way, from its arrival until it is filed. One that is to be executed late is under way again.
#[derive(Clone, Debug, Serialize)]
pub struct OpenEntry {
    pub arrival: u64,
    /// Real time, whatever was advanced: to be compared with other logs of the same machine.
    pub arrived: String,
    pub call: Call,
    pub path: String,
    #[serde(flatten)]
    pub creates: Creates,
    /// Its caller has got his answer, or was left.
    pub late: bool,
}

/// What a `batches.create` asks for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Creates {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_file: Option<String>,
}

/// A file that went before its time.
#[derive(Clone, Debug, Serialize)]
pub struct DeletedFile {
    pub seq: u64,
    pub time: String,
    /// Real time.
    pub deleted: String,
    pub name: String,
    pub project: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct RequestEntry {
    pub seq: u64,
    pub time: String,
    /// Number of its arrival: an entry of a late execution has that of the call that it belongs to.
    pub arrival: u64,
    /// Real times.
    pub arrived: String,
    pub ended: String,
    pub call: Call,
    pub method: String,
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// None where the connection was closed without an answer.
    pub status: Option<u16>,
    pub executed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// It is the execution of a call whose caller was answered, or left, before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
    #[serde(flatten)]
    pub creates: Creates,
    /// The job that it made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    pub bytes_in: usize,
    pub bytes_out: usize,
}

#[derive(Clone, Debug, Serialize)]
pub struct DeliveryEntry {
    pub seq: u64,
    pub time: String,
    /// Real time.
    pub ended: String,
    pub event_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    pub url: String,
    pub webhook_id: String,
    pub attempt: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// `delivered`, `failed` (tried again later), `lost`, `given_up`, `disabled`, `extra` (a duplicate).
    pub outcome: &'static str,
    /// How long the endpoint took, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micros: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Ledger {
    last: u64,
    arrivals: u64,
    pub open: BTreeMap<u64, OpenEntry>,
    pub deleted_files: Vec<DeletedFile>,
    pub requests: Vec<RequestEntry>,
    pub deliveries: Vec<DeliveryEntry>,
    pub counts: BTreeMap<Call, u64>,
    pub rows_paid: u64,
    pub bytes_served: u64,
}

impl Ledger {
    /// The number of a call that arrives.
    pub fn arrival(&mut self) -> u64 {
        self.arrivals += 1;
        self.arrivals
    }

    /// Files an entry under the next number; the call is not under way any more.
    pub fn request(&mut self, at: Nanos, mut entry: RequestEntry) {
        entry.seq = self.number();
        entry.time = rfc3339(at);
        entry.ended = rfc3339(real());
        self.open.remove(&entry.arrival);
        self.bytes_served += entry.bytes_out as u64;
        self.requests.push(entry);
    }

    pub fn delivery(&mut self, at: Nanos, mut entry: DeliveryEntry) {
        entry.seq = self.number();
        entry.time = rfc3339(at);
        entry.ended = rfc3339(real());
        self.deliveries.push(entry);
    }

    pub fn deleted(&mut self, at: Nanos, name: String, project: &str) {
        let (time, deleted) = (rfc3339(at), rfc3339(real()));
        let seq = self.number();
        self.deleted_files.push(DeletedFile { seq, time, deleted, name, project: project.to_owned() });
    }

    pub fn count(&mut self, call: Call) {
        *self.counts.entry(call).or_default() += 1;
    }

    pub fn last(&self) -> u64 {
        self.last
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}
