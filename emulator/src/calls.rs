//! The closed set of calls, and how a path becomes one.

use axum::http::{HeaderMap, Method};
use serde::{Deserialize, Serialize};

macro_rules! calls {
    ($($variant:ident = $name:literal),+ $(,)?) => {
        /// Every call of the API; the names are those of the fault plan and of the ledger.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Call {
            $(#[serde(rename = $name)] $variant,)+
        }

        impl Call {
            pub const ALL: &'static [Call] = &[$(Call::$variant),+];

            pub fn name(self) -> &'static str {
                match self { $(Call::$variant => $name),+ }
            }
        }
    };
}

calls! {
    FilesUploadStart = "files.upload_start",
    FilesUploadChunk = "files.upload_chunk",
    FilesUploadQuery = "files.upload_query",
    FilesUploadCancel = "files.upload_cancel",
    FilesGet = "files.get",
    FilesList = "files.list",
    FilesDelete = "files.delete",
    FilesDownload = "files.download",
    BatchesCreate = "batches.create",
    BatchesGet = "batches.get",
    BatchesList = "batches.list",
    BatchesCancel = "batches.cancel",
    BatchesDelete = "batches.delete",
    ModelsGet = "models.get",
    ModelsList = "models.list",
    ModelsCountTokens = "models.count_tokens",
    WebhooksCreate = "webhooks.create",
    WebhooksList = "webhooks.list",
    WebhooksGet = "webhooks.get",
    WebhooksPatch = "webhooks.patch",
    WebhooksDelete = "webhooks.delete",
    WebhooksPing = "webhooks.ping",
    WebhooksRotate = "webhooks.rotate",
    JwksGet = "jwks.get",
    Unknown = "unknown",
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V1Beta,
}

impl Version {
    pub fn path(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V1Beta => "v1beta",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "v1" => Some(Self::V1),
            "v1beta" => Some(Self::V1Beta),
            _ => None,
        }
    }
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub call: Call,
    pub version: Version,
    pub id: String,
    /// The verb after the colon, for calls that share one (`batchGenerateContent`, …).
    pub verb: String,
    /// False for paths that no version of the API has: their 404 is a front end's HTML page.
    pub known_path: bool,
}

pub fn route(method: &Method, path: &str, headers: &HeaderMap) -> Route {
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    if segments == [".well-known", "jwks.json"] && method == Method::GET {
        return found(Call::JwksGet, Version::V1, "", "");
    }
    let (prefix, version, rest) = match segments.as_slice() {
        [prefix @ ("upload" | "download"), version, rest @ ..] => (*prefix, Version::parse(version), rest),
        [version, rest @ ..] => ("", Version::parse(version), rest),
        [] => ("", None, &[][..]),
    };
    let unknown = Route {
        call: Call::Unknown,
        version: version.unwrap_or(Version::V1),
        id: String::new(),
        verb: String::new(),
        known_path: version.is_some() && !rest.is_empty(),
    };
    let Some(version) = version else { return unknown };
    let (collection, id, verb) = match rest {
        [collection] => (*collection, "", ""),
        [collection, last] => {
            let (id, verb) = last.split_once(':').unwrap_or((last, ""));
            (*collection, id, verb)
        }
        _ => return unknown,
    };
    let named = !id.is_empty();
    let call = match (prefix, method.as_str(), collection, named, verb) {
        ("upload", "POST", "files", false, "") => upload_call(headers),
        ("" | "download", "GET", "files", true, "download") => Call::FilesDownload,
        ("", "GET", "files", false, "") => Call::FilesList,
        ("", "GET", "files", true, "") => Call::FilesGet,
        ("", "DELETE", "files", true, "") => Call::FilesDelete,
        ("", "GET", "batches", false, "") => Call::BatchesList,
        ("", "GET", "batches", true, "") => Call::BatchesGet,
        ("", "DELETE", "batches", true, "") => Call::BatchesDelete,
        ("", "POST", "batches", true, "cancel") => Call::BatchesCancel,
        ("", "GET", "models", false, "") => Call::ModelsList,
        ("", "GET", "models", true, "") => Call::ModelsGet,
        ("", "POST", "models", true, "countTokens") => Call::ModelsCountTokens,
        ("", "POST", "models", true, "batchGenerateContent" | "asyncBatchEmbedContent") => {
            Call::BatchesCreate
        }
        ("", "POST", "webhooks", false, "") => Call::WebhooksCreate,
        ("", "GET", "webhooks", false, "") => Call::WebhooksList,
        ("", "GET", "webhooks", true, "") => Call::WebhooksGet,
        ("", "PATCH", "webhooks", true, "") => Call::WebhooksPatch,
        ("", "DELETE", "webhooks", true, "") => Call::WebhooksDelete,
        ("", "POST", "webhooks", true, "ping") => Call::WebhooksPing,
        ("", "POST", "webhooks", true, "rotateSigningSecret") => Call::WebhooksRotate,
        _ => return unknown,
    };
    found(call, version, id, verb)
}

fn found(call: Call, version: Version, id: &str, verb: &str) -> Route {
    Route { call, version, id: id.to_owned(), verb: verb.to_owned(), known_path: true }
}

fn upload_call(headers: &HeaderMap) -> Call {
    let command = headers.get("x-goog-upload-command").and_then(|value| value.to_str().ok()).unwrap_or("");
    let has = |word: &str| command.split(',').any(|part| part.trim().eq_ignore_ascii_case(word));
    if has("upload") || has("finalize") {
        Call::FilesUploadChunk
    } else if has("query") {
        Call::FilesUploadQuery
    } else if has("cancel") {
        Call::FilesUploadCancel
    } else {
        Call::FilesUploadStart
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &Method, path: &str) -> Call {
        route(method, path, &HeaderMap::new()).call
    }

    #[test]
    fn paths_become_calls() {
        assert_eq!(call(&Method::GET, "/v1/batches"), Call::BatchesList);
        assert_eq!(call(&Method::POST, "/v1beta/batches/a:cancel"), Call::BatchesCancel);
        assert_eq!(call(&Method::GET, "/download/v1beta/files/a:download"), Call::FilesDownload);
        assert_eq!(call(&Method::POST, "/v1/models/m:batchGenerateContent"), Call::BatchesCreate);
        assert_eq!(call(&Method::POST, "/upload/v1/files"), Call::FilesUploadStart);
        assert_eq!(call(&Method::GET, "/v1/webhooks/webhooks/x"), Call::Unknown);
        assert_eq!(call(&Method::GET, "/v2/batches"), Call::Unknown);
        assert_eq!(call(&Method::GET, ""), Call::Unknown);
        assert_eq!(call(&Method::GET, "/////"), Call::Unknown);
    }

    #[test]
    fn only_known_versions_have_known_paths() {
        assert!(route(&Method::GET, "/v1/nothing", &HeaderMap::new()).known_path);
        assert!(!route(&Method::GET, "/nothing", &HeaderMap::new()).known_path);
    }
}
