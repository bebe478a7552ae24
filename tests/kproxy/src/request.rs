//! What a request to the API server is about.

use std::fmt;

use axum::http::{HeaderMap, Method, Uri, header};
use serde_json::Value;

/// What is done, in the words of RBAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
}

impl Verb {
    pub const MUTATING: [Self; 4] = [Self::Create, Self::Update, Self::Patch, Self::Delete];

    pub fn is_mutating(self) -> bool {
        Self::MUTATING.contains(&self)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
        })
    }
}

/// One request, as far as rules look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub verb: Verb,
    /// `geminibatches`, `geminibatches/status`, …; the whole path of what is no resource.
    pub resource: String,
    pub namespace: String,
    /// Empty for collections; of a new object, the name in its body.
    pub name: String,
    /// Tried only: nothing is kept.
    pub dry_run: bool,
    /// The answer may hold metadata only.
    pub metadata_only: bool,
}

impl Target {
    pub fn of(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Self {
        let path: Vec<&str> = uri.path().split('/').filter(|part| !part.is_empty()).collect();
        let query = uri.query().unwrap_or_default();
        let has = |name: &str, values: &[&str]| {
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .any(|(n, v)| n == name && values.contains(&v))
        };
        // /api/VERSION/… or /apis/GROUP/VERSION/…
        let rest = match path.as_slice() {
            ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
            _ => &[],
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let (resource, name) = match rest {
            [] => (uri.path().to_owned(), ""),
            [resource] => ((*resource).to_owned(), ""),
            [resource, name] => ((*resource).to_owned(), *name),
            [resource, name, sub @ ..] => (format!("{resource}/{}", sub.join("/")), *name),
        };
        let verb = match *method {
            Method::POST => Verb::Create,
            Method::PUT => Verb::Update,
            Method::PATCH => Verb::Patch,
            Method::DELETE => Verb::Delete,
            _ if has("watch", &["true", "1"]) => Verb::Watch,
            _ if !rest.is_empty() && name.is_empty() => Verb::List,
            _ => Verb::Get,
        };
        let name = if name.is_empty() && verb == Verb::Create { name_in(body) } else { name.to_owned() };
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        Self {
            verb,
            resource,
            namespace: namespace.to_owned(),
            name,
            dry_run: has("dryRun", &["All"]),
            metadata_only: accept.contains("as=PartialObjectMetadata"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dry_run = if self.dry_run { " (dry run)" } else { "" };
        write!(f, "{} {}{dry_run}", self.verb, self.resource)
    }
}

/// Names that the server makes count by what they begin with.
fn name_in(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let metadata = &body["metadata"];
    metadata["name"].as_str().or(metadata["generateName"].as_str()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_rbac_reads_them() {
        let seen = |method: Method, uri: &str, body: &str| {
            let target = Target::of(&method, &uri.parse().unwrap(), &HeaderMap::new(), body.as_bytes());
            format!("{target} {}/{}", target.namespace, target.name)
        };
        for (method, uri, body, expected) in [
            (Method::GET, "/version", "", "get /version /"),
            (Method::GET, "/api/v1/namespaces/ns", "", "get namespaces /ns"),
            (Method::GET, "/api/v1/namespaces/ns/secrets/s", "", "get secrets ns/s"),
            (Method::GET, "/apis/g/v1/namespaces/ns/things?limit=5", "", "list things ns/"),
            (Method::GET, "/apis/g/v1/things?watch=true&x=1", "", "watch things /"),
            (Method::PUT, "/apis/g/v1/namespaces/ns/things/a/status?", "", "update things/status ns/a"),
            (Method::PATCH, "/apis/g/v1/namespaces/ns/things/a", "", "patch things ns/a"),
            (Method::DELETE, "/apis/g/v1/namespaces/ns/things/a", "", "delete things ns/a"),
            (
                Method::POST,
                "/api/v1/namespaces/ns/configmaps?dryRun=All",
                r#"{"metadata":{"name":"c"}}"#,
                "create configmaps (dry run) ns/c",
            ),
        ] {
            assert_eq!(seen(method, uri, body), expected, "{uri}");
        }
    }
}
