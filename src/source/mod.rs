//! Where requests come from. Reads a source and hands back rows; what a row must look like is decided in `rows`.

mod config_map;
mod inline;
#[cfg(test)]
mod tests;

use crate::api::batch::Input;
use crate::rows::{InputError, Row};

/// Why the requests could not be had. Messages name the field of the spec and the way out.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The object, or the key in it, is not there (yet).
    #[error("{0}")]
    NotFound(String),
    /// The operator may not read it.
    #[error("{0}")]
    Forbidden(String),
    /// The API server could not answer: worth another try soon.
    #[error("{0}")]
    Unavailable(String),
    /// It was read, and is no valid input.
    #[error("{0}")]
    Invalid(#[from] InputError),
}

/// Reads the requests of a batch.
pub async fn load(client: &kube::Client, namespace: &str, input: &Input) -> Result<Vec<Row>, SourceError> {
    match (&input.inline, &input.config_map_ref) {
        (Some(inline), None) => Ok(inline::rows(inline)?),
        (None, Some(reference)) => config_map::rows(client, namespace, reference).await,
        // The CRD refuses both and none; an object from before a CRD's rule may still say so.
        _ => Err(SourceError::Invalid(InputError::of_spec(
            "spec.input needs exactly one of `inline` and `configMapRef`",
        ))),
    }
}
