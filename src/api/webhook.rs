//! `GeminiWebhook`: an endpoint of ours, registered at Gemini.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::GoDuration;
use super::refs::{SecretKeyRef, SigningSecretRef};

/// The endpoint that is registered at Gemini, the events that it is told of, and the API key whose Google project they
/// come from.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gemini-operator.io",
    version = "v1alpha1",
    kind = "GeminiWebhook",
    plural = "geminiwebhooks",
    namespaced,
    status = "GeminiWebhookStatus",
    derive = "PartialEq",
    validation = Rule::new("self.spec.mode == 'External' ? has(self.spec.signingSecret) : !has(self.spec.signingSecret)")
        .message("spec.signingSecret goes with mode External, and with no other: there it names the Secret of the endpoint"),
    validation = Rule::new("!has(self.spec.signature) || (self.spec.mode == 'Static' ? self.spec.signature == 'StandardWebhooks' : self.spec.mode == 'Dynamic' ? self.spec.signature.startsWith('Dynamic') : !self.spec.signature.startsWith('Dynamic'))")
        .message("spec.signature does not go with spec.mode: Static has StandardWebhooks; Dynamic has DynamicV1a or DynamicJwt; External has StandardWebhooks or XGoogSignature"),
    validation = Rule::new("!has(self.spec.jwt) || (has(self.spec.signature) && self.spec.signature == 'DynamicJwt')")
        .message("spec.jwt goes with signature DynamicJwt only"),
    validation = Rule::new("!has(self.spec.rotation) || !has(self.spec.rotation.interval) || self.spec.mode == 'Static'")
        .message("spec.rotation.interval goes with mode Static only: elsewhere the operator does not make the secret"),
    shortname = "gwh",
    category = "gemini",
    doc = "GeminiWebhook registers this cluster's receiver at Gemini, keeps its signing secret, and proves by a ping that deliveries arrive. It serves the batches of its namespace that use the same API key; one in the operator's namespace serves all namespaces.",
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.endpoint.url"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reachable",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"EndpointReachable\")].status"
    ),
    printcolumn(name = "Last-Event", type_ = "date", json_path = ".status.lastDelivery.time"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "ID", type_ = "string", json_path = ".status.id", priority = 1),
    printcolumn(name = "Rotated", type_ = "date", json_path = ".status.lastRotationTime", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct GeminiWebhookSpec {
    /// The Secret that holds the Gemini API key, in this namespace. The webhook receives the events of that key's
    /// Google project.
    pub api_key_secret_ref: SecretKeyRef,

    /// Where Gemini reaches the receiver.
    pub endpoint: Endpoint,

    /// How Gemini comes to know the endpoint. It cannot be changed later. `events`, `selfTest`, `onDisabled`,
    /// `deletionPolicy` and `deletionTimeout` are about a registration of the operator's: of mode `Static` only. Default:
    /// `Static`.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.mode cannot be changed; create another GeminiWebhook instead"))]
    pub mode: RegistrationMode,

    /// The one signature scheme that is accepted on this route; a delivery is never tried with another one. Default:
    /// `StandardWebhooks`, and with mode `Dynamic` `DynamicV1a`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<SignatureScheme>,

    /// The Secret that holds the signing secret of an endpoint that somebody else has registered: mode `External`
    /// only. Otherwise the operator keeps the secret itself. A change is in force within a minute, and the secret before it
    /// stays good as `rotation.revocation` says. If the Secret goes, or what stands there cannot be used, the condition
    /// `SecretReady` says so, and the last good one goes on verifying deliveries as long as this object is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_secret: Option<SigningSecretRef>,

    /// What the claims of a token must say: signature `DynamicJwt` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,

    /// How far the clocks of sender and receiver may differ, and how old a delivery may be. From `30s` to `15m`. Signature
    /// `XGoogSignature` has no time to compare. Default: `5m`.
    #[serde(default = "default_tolerance")]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,6}[hms])+$') || (duration(self) >= duration('30s') && duration(self) <= duration('15m'))")
        .message("spec.tolerance must be from 30s to 15m"))]
    pub tolerance: GoDuration,

    /// Events to subscribe to. Gemini refuses names that it does not know, and the message is shown in the
    /// condition `Registered`. Default: `batch.succeeded`, `batch.failed`, `batch.expired`.
    #[serde(default = "default_events")]
    #[schemars(
        length(min = 1, max = 16),
        inner(length(max = 64)),
        extend("x-kubernetes-list-type" = "set")
    )]
    #[x_kube(validation = Rule::new(r"self.all(event, event.matches('^[a-z_]+\\.[a-z_]+$'))")
        .message("every event must be of the form batch.succeeded"))]
    pub events: Vec<String>,

    /// `false` keeps the registration but tells Gemini to send nothing; where the operator registers nothing, batches do not
    /// rely on this webhook. Default: `true`.
    #[serde(default = "default_enabled")]
    pub enabled: bool,

    /// When the signing secret is replaced by a new one. Annotation `gemini-operator.io/rotate-at: <RFC 3339>` has it done
    /// once, at that time.
    #[serde(default)]
    pub rotation: Rotation,

    /// How the way from Gemini to here is tested.
    #[serde(default)]
    pub self_test: SelfTest,

    /// What happens when Gemini disables the registration because deliveries fail. Default: `Reenable`.
    #[serde(default)]
    pub on_disabled: OnDisabled,

    /// Whether the registration is removed at Gemini when this object is deleted. Default: `Delete`.
    #[serde(default)]
    pub deletion_policy: RegistrationDeletionPolicy,

    /// How long a deletion may wait for Gemini. After that the object goes, and an Event names the registration
    /// that may be left. Default: `20m`.
    #[serde(default = "default_deletion_timeout")]
    pub deletion_timeout: GoDuration,
}

/// Where Gemini reaches the receiver.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Public https address of the receiver's Ingress, with or without a path. The operator appends a path of its
    /// own that nobody can guess; `status.url` is the whole.
    #[schemars(length(max = 1024))]
    #[x_kube(
        validation = Rule::new("self.startsWith('https://')")
            .message("spec.endpoint.url must start with https:// (Gemini delivers to nothing else)"),
        validation = Rule::new("!self.contains('?') && !self.contains('#')")
            .message("spec.endpoint.url must have neither a query (?) nor a fragment (#)"),
        validation = Rule::new("!self.contains('@')")
            .message("spec.endpoint.url must not contain user information (@)"),
        validation = Rule::new(r"!self.matches('^https://([0-9.]+|\\[.*\\])(:[0-9]+)?(/.*)?$')")
            .message("spec.endpoint.url must name a host, not an IP address"),
        validation = Rule::new(r"!self.startsWith('https://') || self.matches('[]?#@[]') || self.matches('^https://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$')")
            .message("spec.endpoint.url must look like https://hooks.example.com or https://example.com/gemini")
    )]
    pub url: String,
}

/// When the signing secret is replaced by a new one.
#[derive(KubeSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// How often. At least `24h`; never, if it is left out. `status.nextRotationTime` says when it is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,6}[hms])+$') || duration(self) >= duration('24h')")
        .message("spec.rotation.interval must be at least 24h"))]
    pub interval: Option<GoDuration>,

    /// How long the old secret stays good. Default: `After24h`.
    #[serde(default)]
    pub revocation: RevocationBehavior,
}

/// How long a signing secret stays good that was rotated out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RevocationBehavior {
    /// Gemini goes on using it for 24 hours, and the receiver accepts it that long. While three old ones are good, a
    /// rotation waits. With mode `External` it is accepted as long, whoever uses it.
    #[default]
    After24h,
    /// It is worth nothing from then on: for a secret that others have seen. Deliveries are refused until the receivers have
    /// the new one, and Gemini sends them again.
    Immediately,
}

/// How the way from Gemini to here is tested.
#[derive(KubeSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SelfTest {
    /// How often Gemini is asked for a ping, which must arrive here with a valid signature within a minute; the
    /// condition `EndpointReachable` says how far it came. What is registered at Gemini is compared with this spec
    /// first. At least `5m`. Default: `6h`.
    #[serde(default = "default_self_test_interval")]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,6}[hms])+$') || duration(self) >= duration('5m')")
        .message("spec.selfTest.interval must be at least 5m"))]
    pub interval: GoDuration,
}

impl Default for SelfTest {
    fn default() -> Self {
        Self { interval: default_self_test_interval() }
    }
}

/// What the claims of a token must say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Jwt {
    /// The claim `aud`, exactly. Default: `status.url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub audience: Option<String>,
    /// The claim `iss`, exactly. Default: anything, for Gemini documents none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub issuer: Option<String>,
}

/// How Gemini comes to know the endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RegistrationMode {
    /// The operator registers it, once for all batches.
    #[default]
    Static,
    /// Nothing is registered: each batch passes the address with its job. Whatever else is registered in the project is not
    /// told of these jobs.
    Dynamic,
    /// Somebody else has registered `status.url`, and gives the signing secret in `spec.signingSecret`.
    External,
}

/// Signature scheme of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SignatureScheme {
    /// HMAC-SHA256 by a signing secret (`v1`): what Gemini signs registered webhooks with. Modes `Static` and `External`.
    #[default]
    StandardWebhooks,
    /// Ed25519 by Gemini's public keys (`v1a`): how deliveries of mode `Dynamic` were seen to come.
    DynamicV1a,
    /// A JWT by Gemini's public keys: how its documentation describes deliveries of mode `Dynamic`.
    DynamicJwt,
    /// HMAC-SHA256 over the body alone, in header `X-Goog-Signature`: the scheme of a widely read tutorial, by a sender of
    /// your own. Mode `External`. Gemini itself sends nothing of the kind. Who overhears one delivery can send it again for
    /// ever, which condition `ReplayableSignature` says.
    XGoogSignature,
}

impl GeminiWebhookSpec {
    /// The scheme of the route.
    pub fn scheme(&self) -> SignatureScheme {
        scheme(self.mode, self.signature)
    }
}

/// The scheme of a route by what its webhook says.
pub fn scheme(mode: RegistrationMode, signature: Option<SignatureScheme>) -> SignatureScheme {
    let default = match mode {
        RegistrationMode::Static | RegistrationMode::External => SignatureScheme::StandardWebhooks,
        RegistrationMode::Dynamic => SignatureScheme::DynamicV1a,
    };
    signature.unwrap_or(default)
}

/// What happens when Gemini disables the registration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnDisabled {
    /// Enable it again and prove it by a ping; with pauses from a minute to an hour, at most 24 times in a day.
    #[default]
    Reenable,
    /// Say so in the condition `DeliveryHealthy`, and leave it to a person.
    Report,
}

/// What a deletion does to the registration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RegistrationDeletionPolicy {
    /// Remove the registration at Gemini.
    #[default]
    Delete,
    /// Leave it.
    Orphan,
}

fn default_events() -> Vec<String> {
    ["batch.succeeded", "batch.failed", "batch.expired"].map(String::from).to_vec()
}

fn default_enabled() -> bool {
    true
}

/// By the Standard Webhooks text. Each retry carries a fresh time stamp, so that a slow one is not refused for its age.
pub fn default_tolerance() -> GoDuration {
    GoDuration::from_mins(5)
}

fn default_self_test_interval() -> GoDuration {
    GoDuration::from_mins(6 * 60)
}

fn default_deletion_timeout() -> GoDuration {
    GoDuration::from_mins(20)
}

/// Where the registration stands at Gemini, and whether deliveries arrive here. Written by the operator only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GeminiWebhookStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The registration's id at Gemini, if it is the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,

    /// The whole registered URL. Its last part is a secret of sorts: who knows it can make the receiver work, not
    /// make it believe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,

    /// The path by which the receiver knows this webhook: `/v1/h/<token>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,

    /// State at Gemini: `enabled`, `disabled` or `disabled_due_to_failed_deliveries`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,

    /// Fingerprint of the API key that the registration was made with, or else that the object names (keyed, not
    /// reversible). Batches with that key may rely on this webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_fingerprint: Option<String>,

    /// The signing secrets that Gemini may use, as Gemini shows them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub signing_secrets: Vec<SigningSecretStatus>,

    /// When the registration was made or adopted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered_time: Option<Time>,

    /// When the signing secret was replaced last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rotation_time: Option<Time>,

    /// When it is replaced next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_rotation_time: Option<Time>,

    /// How often the registration was enabled again after Gemini had disabled it. Forgotten a day after the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reenabled: Option<Reenabled>,

    /// The newest self-test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_ping: Option<LastPing>,

    /// The receiver's word on the newest delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_delivery: Option<LastDelivery>,

    /// The state in the form that `kubectl wait` and other tools read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A signing secret, as Gemini shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SigningSecretStatus {
    /// The end of the secret.
    pub truncated: String,
    /// When Gemini stops using it; absent for the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_time: Option<Time>,
}

/// How often the registration was enabled again after Gemini had disabled it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reenabled {
    /// How many times.
    pub count: i32,
    /// When it was done the first time.
    pub since: Time,
    /// When it was done the last time.
    pub time: Time,
}

/// A self-test: Gemini is asked to send a ping, and the receiver must see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastPing {
    /// When it was asked for.
    pub sent_time: Time,
    /// When a verified delivery after it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_time: Option<Time>,
}

/// The receiver's word on the newest delivery; written at most once a minute, and at once for a self-test.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastDelivery {
    /// When the newest verified delivery arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// The `webhook-id` header of that delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The type of that delivery, for example `batch.succeeded` or `ping`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// Our clock less the sender's, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skew_seconds: Option<i64>,
    /// Fingerprint of the signing secret that verified it; of a public key of Gemini's, its thumbprint (RFC 7638).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_fingerprint: Option<String>,
    /// A delivery that was refused while a self-test was outstanding; or one whose token is Gemini's and for another
    /// audience than this webhook's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<RejectedDelivery>,
}

/// A refused delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RejectedDelivery {
    /// Why it was refused: a `reason` of the receiver's metric of rejections, for example `no_matching_signature`.
    pub reason: String,
    /// When it was refused.
    pub time: Time,
    /// To whom its token was addressed, if it was refused for that (`aud`): what `spec.jwt.audience` may have to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub observed_audience: Option<String>,
}
