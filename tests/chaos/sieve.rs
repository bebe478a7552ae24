//! Sieve's three: intermediate states, stale states, unobserved states.
