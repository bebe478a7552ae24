//! Everything that happened, for whoever judges a client afterwards. It never holds keys or secrets.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::calls::Call;
use crate::clock::{Nanos, rfc3339};

#[derive(Clone, Debug, Serialize)]
pub struct RequestEntry {
    pub seq: u64,
    pub time: String,
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
    pub bytes_in: usize,
    pub bytes_out: usize,
}

#[derive(Clone, Debug, Serialize)]
pub struct DeliveryEntry {
    pub seq: u64,
    pub time: String,
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
    pub requests: Vec<RequestEntry>,
    pub deliveries: Vec<DeliveryEntry>,
    pub counts: BTreeMap<Call, u64>,
    pub rows_paid: u64,
    pub bytes_served: u64,
}

impl Ledger {
    /// Files an entry under the next number.
    pub fn request(&mut self, at: Nanos, mut entry: RequestEntry) {
        entry.seq = self.number();
        entry.time = rfc3339(at);
        self.bytes_served += entry.bytes_out as u64;
        self.requests.push(entry);
    }

    pub fn delivery(&mut self, at: Nanos, mut entry: DeliveryEntry) {
        entry.seq = self.number();
        entry.time = rfc3339(at);
        self.deliveries.push(entry);
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
