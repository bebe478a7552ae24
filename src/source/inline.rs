//! Requests written into the object itself.

use crate::api::batch::Inline;
use crate::rows::{InlineRequest, InputError, Row, from_requests, parse_jsonl};

pub(super) fn rows(inline: &Inline) -> Result<Vec<Row>, InputError> {
    match (&inline.requests, &inline.jsonl) {
        (Some(requests), None) => {
            let requests: Vec<InlineRequest> = requests
                .iter()
                .map(|r| InlineRequest {
                    key: r.key.clone(),
                    prompt: r.prompt.clone(),
                    system: r.system.clone(),
                    generation_config: r.generation_config.clone(),
                })
                .collect();
            from_requests(&requests).map_err(|e| e.within("spec.input.inline.requests"))
        }
        (None, Some(jsonl)) => parse_jsonl(jsonl.as_bytes()).map_err(|e| e.within("spec.input.inline.jsonl")),
        _ => Err(InputError::of_spec("spec.input.inline needs exactly one of `requests` and `jsonl`")),
    }
}
