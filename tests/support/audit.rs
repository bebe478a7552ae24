//! The API server's audit log: who wrote what.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::cluster::OPERATOR_NAMESPACE;

/// One finished request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Name of the ServiceAccount, or the whole user name of anybody else.
    pub user: String,
    pub verb: String,
    /// `geminibatches/status`, `configmaps`, …
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub code: u64,
}

impl Request {
    fn parse(line: &str) -> Option<Self> {
        let event: Value = serde_json::from_str(line).ok()?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &event["objectRef"];
        let account = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:");
        let user = text(&event["user"]["username"]);
        let resource = match object["subresource"].as_str() {
            Some(sub) => format!("{}/{sub}", text(&object["resource"])),
            None => text(&object["resource"]),
        };
        Some(Self {
            user: user.strip_prefix(&account).map_or(user.clone(), ToOwned::to_owned),
            verb: text(&event["verb"]),
            resource,
            namespace: text(&object["namespace"]),
            name: text(&object["name"]),
            code: event["responseStatus"]["code"].as_u64().unwrap_or_default(),
        })
    }

    /// Whether it changed something, or tried to.
    pub fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }

    /// Whether RBAC or an admission policy refused it.
    pub fn is_forbidden(&self) -> bool {
        matches!(self.code, 401 | 403)
    }
}

/// What the log has held since a moment. A run of many tests writes hundreds of megabytes, and each test reads its own.
pub struct Since {
    log: PathBuf,
    from: u64,
}

impl Since {
    pub fn now(log: &Path) -> Self {
        let from = log.metadata().map_or(0, |log| log.len());
        Self { log: log.to_owned(), from }
    }

    /// Its first line may be the rest of one that was half written at that moment.
    fn read(&self) -> String {
        let mut bytes = vec![];
        let read = File::open(&self.log).and_then(|mut log| {
            log.seek(SeekFrom::Start(self.from))?;
            log.read_to_end(&mut bytes)
        });
        read.unwrap_or_else(|error| panic!("{}: {error}", self.log.display()));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// All events about objects of one namespace that changed something, or tried to, as they stand in the log.
pub fn events(log: &Since, namespace: &str) -> Vec<Value> {
    let text = log.read();
    // Reads are many, and a test is not to wait for their parsing. The verb comes before everything that others wrote.
    let is_read = |line: &str| {
        let verb = line.split_once(r#""verb":""#).map_or("", |(_, rest)| rest);
        ["get\"", "list\"", "watch\""].iter().any(|read| verb.starts_with(read))
    };
    let lines = text.lines().filter(|line| line.contains(namespace) && !is_read(line));
    let all = lines.filter_map(|line| serde_json::from_str(line).ok());
    all.filter(|event: &Value| event["objectRef"]["namespace"] == namespace).collect()
}

/// All requests about objects of one namespace, in the order in which they ended.
pub fn requests(log: &Since, namespace: &str) -> Vec<Request> {
    let text = log.read();
    let all = text.lines().filter(|line| line.contains(namespace)).filter_map(Request::parse);
    all.filter(|request| request.namespace == namespace).collect()
}
