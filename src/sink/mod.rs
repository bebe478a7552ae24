//! Where results go. What is written is composed and laid out here without I/O (`publication`, `layout`); how it is
//! written is one file per sink.

mod config_map;
mod layout;
mod publication;
#[cfg(test)]
pub(crate) mod tests;

pub use config_map::{Published, check, publish};
pub use layout::{Layout, MAX_PART_BYTES, MAX_PARTS, Part, TooLarge, layout};
pub use publication::{Facts, Publication, Remote, compose};

/// Key of the answers in a result ConfigMap.
pub const RESULTS_KEY: &str = "results.jsonl";
/// Key of the failed rows.
pub const ERRORS_KEY: &str = "errors.jsonl";
/// Key of the manifest.
pub const MANIFEST_KEY: &str = "manifest.json";

/// Why results could not be written. Messages name the object and the way out.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// Not ours to write, or the operator has no right to: it stays so until a person acts.
    #[error("{0}")]
    Forbidden(String),
    /// The API server could not take it now: worth another try.
    #[error("{0}")]
    Unavailable(String),
    /// It cannot fit into this sink.
    #[error("{0}")]
    TooLarge(String),
}

impl From<TooLarge> for SinkError {
    fn from(e: TooLarge) -> Self {
        Self::TooLarge(e.0)
    }
}
