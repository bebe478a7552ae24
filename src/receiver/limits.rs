//! All limits of the receiver, in one place, each with its reason. Only the verifier keeps its own (number and length
//! of signatures, length of an id), because it knows nothing outside its folder.

use std::time::Duration;

/// A delivery is an envelope of some hundred bytes; user metadata may swell it. More is not from Gemini.
pub const BODY_BYTES: usize = 256 * 1024;

/// So much of a body that is too large is read and thrown away, so that its sender lives to see the 413.
pub const POURED_AWAY_BYTES: usize = 1024 * 1024;

/// A body up to this size costs nothing: 1 024 of them are 8 MiB. Real deliveries are far below it.
pub const BODY_FREE_BYTES: usize = 8 * 1024;

/// Larger bodies take memory in steps of this size …
pub const BODY_GRANT_BYTES: usize = 32 * 1024;

/// … of which there are so many: 32 MiB. Otherwise 1 024 senders that stop just before the end of a body of the
/// largest size would take 256 MiB, and the pod's memory limit with it. Who comes too many gets a 503.
pub const BODY_GRANTS: usize = 1024;

/// All headers together. Ingress controllers add their own; the smallest buffer that leaves room for them.
pub const ALL_HEADERS_BYTES: usize = 16 * 1024;

/// Number of headers: a proxied delivery has about 20.
pub const HEADERS: usize = 64;

/// The current secret and at most three previous ones.
pub const SECRETS: usize = 4;

/// Length of an event type that is written to a status. The longest known one is 27 characters.
pub const TYPE_BYTES: usize = 64;

/// Length of the marker that a job with an address of its own was given: 26 characters, a dot and a number.
pub const MARKER_BYTES: usize = 64;

/// How far the sender's clock and ours may differ on a route that nobody has; on others `spec.tolerance` says it.
pub const TOLERANCE_SECONDS: i64 = 300;

/// From the accepted connection to the end of its first request's headers, the TLS handshake included.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// For the whole body: 256 KiB at 26 KB/s. A total, not a pause between bytes, so that dripping does not help.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection may wait this long for its next request to be complete. An Ingress keeps connections open; closing
/// them sooner would make it lose the race between its next request and our close too often.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Open connections. Each costs about 20 KiB here (buffers and TLS state), so 1 024 of them stay far below the
/// memory limit of the pod, and an Ingress multiplexes its traffic over far fewer.
pub const CONNECTIONS: usize = 1024;

/// A connection younger than this has not been slow yet: a delivery is here within milliseconds of its connection, also
/// when the machine has more to do.
pub const FRESH: Duration = Duration::from_secs(1);

/// From the end of the verification to the answer: the API server must have stored the hint by then. Gemini waits
/// "a few seconds" and tries again for 24 h.
pub const STORE_BUDGET: Duration = Duration::from_secs(2);

/// A write is given this long at the API server, and goes on when its sender was asked to come again: the API server
/// carries out what it has begun whether or not anybody listens, and a connection that is cut off costs it a TLS handshake
/// on top. As long as the client waits for any answer.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes under way at the API server, each on a connection of its own; the others wait here, where waiting costs nothing.
/// One core of an API server stores 200 to 250 a second, so that 32 are answered within 0.2 s; more would only make all of
/// them slower, and the watches with them. Where a round trip takes 20 ms, 32 are 1 600 a second.
pub const WRITES_AT_ONCE: usize = 32;

/// Of these, for the batches of one namespace: the API server works on all of them at once, and where it is slow, a flood
/// of one namespace's would make each take longer than a sender waits. A quarter is always free for the others. With half of
/// them one namespace alone stored some tenth less.
pub const WRITES_PER_NAMESPACE: usize = WRITES_AT_ONCE / 4 * 3;

/// Deliveries of one webhook that are being stored at a time; who comes too many gets a 503. Each keeps a connection that is
/// not closed for a newcomer, so that a webhook which is flooded, by its own sender even, leaves three quarters of the
/// connections to the others. It is eight times what the API server is asked at once.
pub const DELIVERIES_PER_WEBHOOK: usize = CONNECTIONS / 4;

/// The end of the shutdown: so long for writes that are under way. What comes to nothing then was answered with a 503.
pub const LAST_WRITES: Duration = Duration::from_secs(4);

/// What a 503 asks the sender to wait.
pub const RETRY_AFTER_SECONDS: u32 = 30;

/// After the shutdown signal connections are still served for so long, each with one answer that ends it: whoever keeps
/// one open would otherwise lose the race between its next request and our close. The Service sends nothing new by then:
/// the pod has waited for that before the signal.
pub const LINGER: Duration = Duration::from_secs(2);

/// And then: the longest request is a body of 10 s, public keys of 3 s and a write of 2 s. With the 5 s before the signal, and the last
/// writes, it is below the 30 s that the pod has.
pub const DRAIN: Duration = Duration::from_secs(15);

/// The same remote name and type, stored less than this ago, says nothing new.
pub const REDUNDANT: Duration = Duration::from_mins(1);

/// Gemini retries for 24 h; the ten minutes are for clocks and queues.
pub const DEDUPE_TTL: Duration = Duration::from_mins(24 * 60 + 10);

/// Ids remembered for one webhook. A forgotten one costs one write at most.
pub const DEDUPE_PER_WEBHOOK: usize = 50_000;

/// Ids remembered in all: about 20 MB.
pub const DEDUPE_TOTAL: usize = 200_000;

/// An event for a job that no batch has recorded yet waits this long. The controller records the name within
/// seconds of creating the job, and looks once by itself when it has.
pub const EARLY_TTL: Duration = Duration::from_mins(1);

/// So many of them are stored at a time, and so many names are taken at once from the queue of those that appeared.
pub const EARLY_AT_ONCE: usize = 64;

/// Such events for one webhook. Every job of the Google project that is not ours passes through here.
pub const EARLY_PER_WEBHOOK: usize = 1_000;

/// Such events in all.
pub const EARLY_TOTAL: usize = 10_000;

/// A webhook's `lastDelivery` is written at most this often, unless a self-test is outstanding.
pub const DELIVERY_INTERVAL: Duration = Duration::from_mins(1);

/// Clocks of two of our processes that differ by more than this: longer than a watch lags behind, much shorter than a
/// self-test.
pub const CLOCKS_APART: Duration = Duration::from_secs(10);

/// A self-test is outstanding for this long.
pub const SELF_TEST: Duration = Duration::from_mins(2);

/// The public keys of dynamic deliveries are good for so long. A key that the provider takes back is accepted until then.
pub const JWKS_FRESH: Duration = Duration::from_mins(10);

/// While the provider's document cannot be had they are good for so long: Gemini retries for 24 h, and nothing is won by
/// refusing until then what was good before.
pub const JWKS_STALE: Duration = Duration::from_hours(24);

/// From the beginning of one call for them to that of the next, whatever comes meanwhile and however the call ended.
pub const JWKS_INTERVAL: Duration = Duration::from_mins(1);

/// For the whole call: a document of a few KiB. Its delivery waits for it, and its sender only "a few seconds".
pub const JWKS_TIMEOUT: Duration = Duration::from_secs(3);
