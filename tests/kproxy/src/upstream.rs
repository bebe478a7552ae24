//! The API server, as a kubeconfig names it.

use std::fs;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use serde_json::{Value, json};

/// Why there is no proxy.
#[derive(Debug)]
pub struct Error(pub String);

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Says where an error happened.
pub(crate) fn at<E: std::fmt::Display>(place: impl std::fmt::Display) -> impl FnOnce(E) -> Error {
    move |error| Error(format!("{place}: {error}"))
}

/// Where requests go, and how.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    /// Without a slash at its end.
    pub base: String,
    pub http: reqwest::Client,
}

impl Upstream {
    /// The first cluster of a kubeconfig. It must be JSON, which is YAML as well.
    pub fn read(kubeconfig: &Path) -> Result<Self, Error> {
        let config = read(kubeconfig)?;
        let cluster = &config["clusters"][0]["cluster"];
        let base =
            cluster["server"].as_str().ok_or_else(|| Error("the kubeconfig names no server".into()))?;
        // HTTP/1.1 only, as on the other side: what is held on one connection holds up no other.
        let mut http = reqwest::Client::builder().no_proxy().http1_only();
        let ca = match (&cluster["certificate-authority-data"], &cluster["certificate-authority"]) {
            (Value::String(data), _) => Some(BASE64.decode(data.as_bytes()).map_err(at("the CA"))?),
            (_, Value::String(path)) => {
                let path = kubeconfig.parent().map_or_else(|| PathBuf::from(path), |dir| dir.join(path));
                Some(fs::read(&path).map_err(at(path.display()))?)
            }
            _ => None,
        };
        if let Some(ca) = ca {
            let all = reqwest::Certificate::from_pem_bundle(&ca).map_err(at("the CA"))?;
            http = http.tls_certs_only(all);
        }
        let http = http.build().map_err(at("the client"))?;
        Ok(Self { base: base.trim_end_matches('/').to_owned(), http })
    }
}

/// The kubeconfig of `account`, leading to `address`; the account's bearer token.
pub(crate) fn redirect(account: &Path, address: &str) -> Result<(Value, Option<String>), Error> {
    let mut config = read(account)?;
    let token = config["users"][0]["user"]["token"].as_str().map(ToOwned::to_owned);
    config["clusters"][0]["cluster"] = json!({ "server": format!("http://{address}") });
    Ok((config, token))
}

fn read(path: &Path) -> Result<Value, Error> {
    let text = fs::read(path).map_err(at(path.display()))?;
    serde_json::from_slice(&text).map_err(at(path.display()))
}
