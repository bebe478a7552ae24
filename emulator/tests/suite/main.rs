//! Tests of the emulator: the real binary, over real sockets.

mod batches;
mod cli;
mod deliveries;
mod examiner;
mod faults;
mod files;
mod support;
mod traces;
mod webhooks;
