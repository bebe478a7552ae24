//! Keys that the provider replaces: found by one call, and what has left its document proves nothing any more.

use serde_json::{Value, json};

use super::{
    bed_with, ended_by_event, first_answer, first_fingerprint, make_webhook, make_webhook_as, options,
    retried_until_taken, statuses, thumbprints, url_of,
};
use crate::objects::tickets;
use crate::support::Bed;

/// A kind of signatures.
struct Kind {
    /// As the emulator calls it, and as a GeminiWebhook does.
    name: &'static str,
    signature: &'static str,
    /// As the document does.
    kty: &'static str,
    /// Why a delivery is refused that a key has signed which is not in the document.
    unknown: &'static str,
}

const ED25519: Kind =
    Kind { name: "v1a", signature: "DynamicV1a", kty: "OKP", unknown: "no_matching_signature" };
const JWT: Kind = Kind { name: "jwt", signature: "DynamicJwt", kty: "RSA", unknown: "kid" };

impl Kind {
    /// Replaces every key of this kind.
    async fn rotate(&self, bed: &Bed) {
        let old = thumbprints(bed, self.kty).await;
        assert!(!old.is_empty(), "keys without which nothing would be rotated");
        for _ in &old {
            bed.emulator.rotate_keys(self.name).await;
        }
        let new = thumbprints(bed, self.kty).await;
        assert_eq!(new.len(), old.len());
        assert!(new.iter().all(|key| !old.contains(key)), "{old:?} {new:?}");
    }

    async fn refused(&self, bed: &Bed) -> f64 {
        let series = format!("gemini_operator_receiver_rejections_total{{reason=\"{}\"}}", self.unknown);
        bed.metric(&series).await.unwrap_or(0.0)
    }
}

/// The first attempt of each delivery is signed by the key that has left the document.
fn by_the_old_key() -> Value {
    json!({"deliveries": [{"match": {"attempt": [1]}, "do": {"forge": "retired"}}]})
}

/// Every call for keys so far. The test's own looks at the document are calls too.
async fn calls(bed: &Bed) -> usize {
    bed.ledger().await.calls("jwks.get")
}

async fn rotated(name: &str, kind: Kind) {
    let bed = bed_with(name, options(kind.name == "jwt", json!({}))).await;
    let webhook = make_webhook(&bed, kind.signature).await;
    let url = url_of(&webhook);
    bed.apply(&tickets("before", 1, "Dynamic")).await;
    ended_by_event(&bed, "before", &url).await;
    kind.rotate(&bed).await;
    let looked = calls(&bed).await;

    // Nothing has asked for the document since, so the old key is as good as before.
    bed.emulator.set_faults(&by_the_old_key()).await;
    bed.apply(&tickets("between", 1, "Dynamic")).await;
    assert_eq!(first_answer(&bed, "between").await.1, 204);
    ended_by_event(&bed, "between", &url).await;
    assert_eq!(calls(&bed).await, looked);

    bed.emulator.set_faults(&json!({})).await;
    bed.apply(&tickets("after", 1, "Dynamic")).await;
    let (job, status) = first_answer(&bed, "after").await;
    // Less than a minute after the first call there is none, unless this machine took so long.
    assert!([204, 401].contains(&status), "{status}");
    retried_until_taken(&bed, &job).await;
    ended_by_event(&bed, "after", &url).await;
    let answers = statuses(&bed, &job).await;
    assert!(answers.iter().all(|status| [204, 401].contains(status)), "{answers:?}");
    assert_eq!(calls(&bed).await, looked + 1);

    // The receiver has the new document, and nobody has to tell it what is not in there any more.
    let refused = kind.refused(&bed).await;
    bed.emulator.set_faults(&by_the_old_key()).await;
    bed.apply(&tickets("late", 1, "Dynamic")).await;
    let (job, status) = first_answer(&bed, "late").await;
    assert_eq!(status, 401);
    ended_by_event(&bed, "late", &url).await;
    assert_eq!(statuses(&bed, &job).await, [401, 204], "the same event, by the old key and by a new one");
    assert!((kind.refused(&bed).await - refused - 1.0).abs() < f64::EPSILON, "not for {}", kind.unknown);
    // If a minute had passed it asked again, in vain.
    assert!(calls(&bed).await <= looked + 2);
    bed.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ed25519_keys_that_replace_all_others_are_found_by_one_call() {
    rotated("dynamic-rotated", ED25519).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_jwts_that_replaces_the_other_is_found_by_one_call() {
    rotated("dynamic-jwt-rotated", JWT).await;
}

/// A batch that is told of at the address of this webhook.
fn tickets_of(name: &str, webhook: &str) -> String {
    let mut batch: Value = serde_json::from_str(&tickets(name, 1, "Dynamic")).unwrap();
    batch["spec"]["webhook"]["name"] = json!(webhook);
    batch.to_string()
}

/// Both kinds of keys are in one document, which is fetched for both; what one kind goes through is nothing to the other.
#[tokio::test(flavor = "multi_thread")]
async fn both_kinds_of_signatures_at_one_time() {
    let bed = bed_with("dynamic-both", options(false, json!({}))).await;
    let signed = url_of(&make_webhook_as(&bed, "signed", ED25519.signature).await);
    let token = url_of(&make_webhook_as(&bed, "token", JWT.signature).await);
    let jwts = json!({"deliveries": [{"match": {"url_contains": token}, "do": {"dynamic": "jwt"}}]});
    bed.emulator.set_faults(&jwts).await;
    bed.apply(&tickets_of("signed-1", "signed")).await;
    bed.apply(&tickets_of("token-1", "token")).await;
    ended_by_event(&bed, "signed-1", &signed).await;
    ended_by_event(&bed, "token-1", &token).await;
    assert_eq!(calls(&bed).await, 1, "one document for both");
    let fingerprint = first_fingerprint(&bed, "signed").await;
    assert!(thumbprints(&bed, "OKP").await.contains(&fingerprint), "{fingerprint}");
    let fingerprint = first_fingerprint(&bed, "token").await;
    assert_eq!(thumbprints(&bed, "RSA").await, [fingerprint]);

    JWT.rotate(&bed).await;
    let looked = calls(&bed).await;
    bed.apply(&tickets_of("token-2", "token")).await;
    let (job, _) = first_answer(&bed, "token-2").await;
    // Whatever the receiver knows of the token's key by now, signatures are taken at once.
    bed.apply(&tickets_of("signed-2", "signed")).await;
    let (other, _) = first_answer(&bed, "signed-2").await;
    ended_by_event(&bed, "signed-2", &signed).await;
    assert_eq!(statuses(&bed, &other).await, [204]);
    retried_until_taken(&bed, &job).await;
    ended_by_event(&bed, "token-2", &token).await;
    let answers = statuses(&bed, &job).await;
    assert!(answers.iter().all(|status| [204, 401].contains(status)), "{answers:?}");
    assert_eq!(calls(&bed).await, looked + 1);
    bed.assert_invariants().await;
}
