//! gemini-operator: runs Gemini Batch API jobs from Kubernetes without polling and without paying twice.

pub mod api;
pub mod gemini;
pub mod rows;
pub mod sink;
pub mod source;
pub mod submit;
