//! Rows to the JSON Lines that are uploaded: the same rows give the same bytes, so the digest names the input.

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::input::{InputError, InputErrorKind, Row};

/// Gemini's limit for an input file, "2 GB", read the strict way.
pub const MAX_INPUT_BYTES: u64 = 2_000_000_000;
/// TE4: what an answer is taken to need when its row does not limit it.
const DEFAULT_RESULT_BYTES: u64 = 1024;
/// TE4: bytes that one output token may become.
const BYTES_PER_TOKEN: u64 = 4;

/// The input as it is uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    pub bytes: Vec<u8>,
    /// Of `bytes`, in lower-case hex.
    pub sha256: String,
    pub rows: usize,
}

/// Writes one line a row: `{"key":…,"request":…}`.
pub fn render(rows: &[Row]) -> Result<Rendered, InputError> {
    // key, request, and the 20-odd bytes around them.
    let expected: usize = rows.iter().map(|row| row.key.len() + row.request.get().len() + 32).sum();
    let limit = usize::try_from(MAX_INPUT_BYTES).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(expected.min(limit));
    for (index, row) in rows.iter().enumerate() {
        write_line(&mut bytes, row).map_err(|e| {
            InputError::new(InputErrorKind::InvalidRow, Some(index + 1), format!("row {}: {e}", index + 1))
        })?;
        if bytes.len() > limit {
            return Err(InputError::new(
                InputErrorKind::TooLarge,
                Some(index + 1),
                format!(
                    "the input is over Gemini's limit of {MAX_INPUT_BYTES} bytes for one job (reached at row {} of {}); \
                     split it into several batches",
                    index + 1,
                    rows.len()
                ),
            ));
        }
    }
    let sha256 = data_encoding::HEXLOWER.encode(&Sha256::digest(&bytes));
    Ok(Rendered { bytes, sha256, rows: rows.len() })
}

fn write_line(out: &mut Vec<u8>, row: &Row) -> Result<(), serde_json::Error> {
    out.extend_from_slice(b"{\"key\":");
    serde_json::to_writer(&mut *out, &row.key)?;
    out.extend_from_slice(b",\"request\":");
    out.extend_from_slice(row.request.get().as_bytes());
    out.extend_from_slice(b"}\n");
    Ok(())
}

/// TE4: how much the answers may need in the sink. Σ over the rows of key + 4 × `maxOutputTokens` where given, else
/// 1 KiB. An estimate: what is really there is measured again when it is written.
pub fn estimate_result_bytes(rows: &[Row]) -> u64 {
    rows.iter().fold(0, |sum, row| {
        let answer =
            max_output_tokens(row).map_or(DEFAULT_RESULT_BYTES, |n| n.saturating_mul(BYTES_PER_TOKEN));
        sum.saturating_add(row.key.len() as u64).saturating_add(answer)
    })
}

fn max_output_tokens(row: &Row) -> Option<u64> {
    // ProtoJSON takes both spellings, and numbers as text.
    #[derive(Deserialize)]
    struct Request {
        #[serde(rename = "generationConfig", alias = "generation_config")]
        config: Option<Config>,
    }
    #[derive(Deserialize)]
    struct Config {
        #[serde(rename = "maxOutputTokens", alias = "max_output_tokens")]
        max: Option<serde_json::Value>,
    }
    let request: Request = serde_json::from_str(row.request.get()).ok()?;
    let max = request.config?.max?;
    max.as_u64().or_else(|| max.as_str()?.parse().ok())
}
