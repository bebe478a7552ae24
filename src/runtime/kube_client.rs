//! The Kubernetes client, with the bounds that kube leaves open.

use std::time::Duration;

use axum::http::{HeaderValue, header};
use kube::client::ClientBuilder;
use kube::{Client, Config};
use tower::timeout::TimeoutLayer;

/// A request whose answer has not begun by now is given up. kube sets no such bound, and a half-open connection
/// would hold its caller for minutes. It covers the response headers only, so watches are not touched.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether the client sends a request again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retries {
    /// kube's own policy: 429, 503 and 504, with back-off.
    Default,
    /// Never. For compare-and-swap writes: one that was applied but answered 504 would be sent again and come back
    /// as a conflict with itself.
    Never,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "no cluster: set KUBECONFIG to a kubeconfig that can be read, or run in a pod with a ServiceAccount"
    )]
    Infer(#[from] kube::config::InferConfigError),
    #[error("the user agent is not a header value")]
    UserAgent(#[from] axum::http::header::InvalidHeaderValue),
    #[error("building the Kubernetes client failed")]
    Build(#[source] kube::Error),
    #[error("the Kubernetes API at {0} does not answer; look at KUBECONFIG, or at the cluster")]
    Unreachable(String, #[source] kube::Error),
}

/// Connects as KUBECONFIG or the pod's ServiceAccount says. `user_agent` is what audit logs show.
pub async fn connect(user_agent: &str, retries: Retries) -> Result<Client, Error> {
    let mut config = Config::infer().await?;
    config.headers.push((header::USER_AGENT, HeaderValue::from_str(user_agent)?));
    config.default_retry = retries == Retries::Default;
    let builder = ClientBuilder::try_from(config).map_err(Error::Build)?;
    Ok(builder.with_layer(&TimeoutLayer::new(ANSWER_TIMEOUT)).build())
}

/// For a process that can do nothing without the API server: says at once that it is not there, and where it was
/// looked for. Any answer will do, also a refusal.
pub async fn reach(client: &Client) -> Result<(), Error> {
    match client.apiserver_version().await {
        Ok(_) | Err(kube::Error::Api(_)) => Ok(()),
        Err(error) => Err(Error::Unreachable(Config::infer().await?.cluster_url.to_string(), error)),
    }
}
