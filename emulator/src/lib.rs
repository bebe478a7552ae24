//! gemini-emulator: a stateful, independent implementation of the Gemini API's batches, files, models and webhooks,
//! for tests, demos and laptops. README.md has the fault plan, the admin API and the differences to the real thing.

pub mod admin;
pub mod answer;
pub mod batches;
pub mod calls;
pub mod clock;
pub mod deliveries;
pub mod digest;
pub mod errors;
pub mod exchange;
pub mod faults;
pub mod files;
pub mod http;
pub mod jobs;
pub mod json;
pub mod jwks;
pub mod ledger;
pub mod matcher;
pub mod models;
pub mod page;
pub mod rows;
pub mod run;
pub mod sender;
pub mod senders;
pub mod server;
pub mod state;
pub mod webhooks;
