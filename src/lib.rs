//! gemini-operator: runs Gemini Batch API jobs from Kubernetes without polling and without paying twice.

pub mod api;
pub mod receiver;
pub mod runtime;
