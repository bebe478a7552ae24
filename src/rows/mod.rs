//! Rows: from JSON Lines to a job's input, and from a job's output to one verdict per row.
//!
//! PURE: no I/O, no clock, no Kubernetes, no HTTP. Every row of the input leaves with exactly one class.

mod class;
mod collect;
mod input;
#[cfg(test)]
mod open_tests;
mod output;
mod render;
#[cfg(test)]
mod tests;
mod whole;

pub use class::{Class, class_of_code};
pub use collect::{Collector, Harvest, Order, RowResult, Summary, Unknown, Usage};
pub use input::{
    InlineRequest, InputError, InputErrorKind, MAX_KEY_CHARS, MAX_ROW_BYTES, Row, from_requests, parse_jsonl,
};
pub use output::{Tokens, Verdict, classify};
pub use render::{MAX_INPUT_BYTES, Rendered, estimate_result_bytes, render};
pub use whole::{Fetched, Wholeness, wholeness};
