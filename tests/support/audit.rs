//! The API server's audit log: who wrote what.

use std::fs;
use std::path::Path;

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

/// All events about objects of one namespace that changed something, or tried to, as they stand in the log.
pub fn events(log: &Path, namespace: &str) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap_or_default();
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
pub fn requests(log: &Path, namespace: &str) -> Vec<Request> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let all = text.lines().filter(|line| line.contains(namespace)).filter_map(Request::parse);
    all.filter(|request| request.namespace == namespace).collect()
}
