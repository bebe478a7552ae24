//! Sieve's three: intermediate states, stale states, unobserved states. In each case the end must be the one that comes
//! about without a fault.
//!
//! The controller is led through `kproxy`. Left out is the write of the operator's own Secret: it is made once for an
//! installation, before there is any batch, and every controller here finds it.
//!
//! `SIEVE=full cargo test --features failpoints --test chaos sieve` runs the whole; without it some cases are left out whose
//! like is run elsewhere.

mod end;
mod stage;
mod stale;
mod unseen;
mod weather;
mod writes;
