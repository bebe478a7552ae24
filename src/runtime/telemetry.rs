//! Logs: one subscriber, on stderr, so that stdout stays free for what other programs read.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::TryInitError;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, for log collectors.
    #[default]
    Json,
    /// For people at a terminal.
    Text,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("RUST_LOG is not a log filter")]
    Filter(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("logging is set up already")]
    AlreadySet(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The client library logs every request that did not get through, without saying which; whoever made the request
/// reports it too, and better.
const DEFAULT_FILTER: &str = "info,kube_client::client::builder=off";

/// Sends events to stderr, filtered by `RUST_LOG` (default: `info`).
pub fn init(format: LogFormat) -> Result<(), Error> {
    use tracing_subscriber::util::SubscriberInitExt;

    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(text).map_err(|e| Error::Filter(e.into()))?,
        _ => EnvFilter::new(DEFAULT_FILTER),
    };
    // At WARN it prints what it cannot decode, that is, whole objects with their prompts.
    let quiet = "kube_client::client=error".parse().map_err(|e: ParseError| Error::Filter(e.into()))?;
    let filter = filter.add_directive(quiet);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let done: Result<(), TryInitError> = match format {
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init(),
        LogFormat::Text => lines.finish().try_init(),
    };
    done.map_err(|e| Error::AlreadySet(e.into()))
}
