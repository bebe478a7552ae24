//! gemini-operator: runs Gemini Batch API jobs from Kubernetes without polling and without paying twice.

pub mod api;
pub mod batch;
pub mod cli;
pub mod controller;
pub mod gemini;
pub mod receiver;
pub mod rows;
pub mod runtime;
pub mod sink;
pub mod source;
pub mod submit;
pub mod webhook;
pub mod yaml;
