//! The route table: which webhook a path belongs to, from a watch of the GeminiWebhooks.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::limits;
use super::signature::dynamic_jwt::Expected;
use super::watch::{Change, Lenient};
use crate::api::GeminiWebhook;
use crate::api::duration::GoDuration;
use crate::api::webhook::{
    Jwt, LastDelivery, LastPing, RegistrationMode, SignatureScheme, default_tolerance, scheme,
};

/// Longest token that is looked up; ours have 26 characters.
const TOKEN_BYTES: usize = 64;

/// A webhook, as far as the receiver cares.
#[derive(Clone, Debug)]
pub struct Route {
    pub uid: Arc<str>,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    /// A webhook of the operator's namespace serves all namespaces.
    pub in_operator_namespace: bool,
    /// How its deliveries are proven.
    pub policy: Policy,
    /// When the newest self-test was asked for; by our own clock, where that is far from the controller's.
    pub ping_sent: Option<Timestamp>,
    /// What was last written by a receiver, this one or another.
    pub last_delivery: Option<LastDelivery>,
    /// The same as the status has it.
    ping_stated: Option<Timestamp>,
    created: Option<Timestamp>,
    token: Token,
}

/// How the deliveries of a route are proven: pinned by its webhook, never negotiated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub scheme: SignatureScheme,
    /// Seconds.
    pub tolerance: i64,
    /// What a token must say, with `DynamicJwt`.
    pub jwt: Expected,
}

impl Policy {
    /// Whether each job has this address for itself, and gets back what was given along with it.
    pub fn is_dynamic(&self) -> bool {
        matches!(self.scheme, SignatureScheme::DynamicV1a | SignatureScheme::DynamicJwt)
    }
}

/// The digest of a token: a lookup by it tells nothing by its duration.
type Token = [u8; 32];

impl Route {
    /// Whether the batches of a namespace are this webhook's business.
    pub fn serves(&self, namespace: &str) -> bool {
        self.in_operator_namespace || *self.namespace == *namespace
    }

    fn from_object(object: SlimWebhook, operator_namespace: &str) -> Option<Self> {
        let SlimWebhook { metadata, spec, status } = object;
        let status = status.0.unwrap_or_default();
        let policy = spec.0.unwrap_or_default().policy(status.url.0);
        // Until the controller has written a path there is nothing to route, but a deletion still needs the uid.
        let token = status.path.0.as_deref().and_then(token_of).map_or([0; 32], digest);
        let namespace = metadata.namespace?;
        let ping_stated = status.last_ping.0.map(|ping| ping.sent_time.0);
        Some(Self {
            uid: metadata.uid?.into(),
            in_operator_namespace: namespace == operator_namespace,
            namespace: namespace.into(),
            name: metadata.name?.into(),
            policy,
            ping_sent: ping_stated,
            ping_stated,
            last_delivery: status.last_delivery.0,
            created: metadata.creation_timestamp.map(|time| time.0),
            token,
        })
    }
}

/// Whether two clocks show so different times that the one is no measure of the other.
fn apart(a: Timestamp, b: Timestamp) -> bool {
    a.as_second().abs_diff(b.as_second()) > limits::CLOCKS_APART.as_secs()
}

/// The token of a path: its last three segments are `v1`, `h` and the token, whatever prefix an Ingress keeps.
pub fn token_of(path: &str) -> Option<&str> {
    let mut segments = path.rsplit('/');
    let (token, h, v1) = (segments.next()?, segments.next()?, segments.next()?);
    // The first segment is preceded by a slash.
    segments.next()?;
    ((h, v1) == ("h", "v1") && (1..=TOKEN_BYTES).contains(&token.len())).then_some(token)
}

fn digest(token: &str) -> Token {
    Sha256::digest(token).into()
}

/// The table. One watch, or one for each watched namespace, keeps it up to date.
#[derive(Debug, Default)]
pub struct Routes {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By uid; with the number of the watch that it came from.
    routes: HashMap<Arc<str>, (usize, Arc<Route>)>,
    /// Those with this token, the oldest first. There is one, unless somebody copied a status.
    by_token: HashMap<Token, Vec<Arc<Route>>>,
}

impl Routes {
    /// The webhooks that show a token, the oldest first.
    pub fn find(&self, token: &str) -> Vec<Arc<Route>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.by_token.get(&digest(token)).cloned().unwrap_or_default()
    }

    /// The newest version of a route.
    pub fn get(&self, uid: &str) -> Option<Arc<Route>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.routes.get(uid).map(|(_, route)| route.clone())
    }

    /// Takes over a change that the watch number `watch` saw. Returns the uids that are gone.
    pub fn apply(&self, watch: usize, change: Change<Route>, now: Timestamp) -> Vec<Arc<str>> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let mut gone = Vec::new();
        match change {
            Change::All(all) => {
                let kept: std::collections::HashSet<_> = all.iter().map(|route| route.uid.clone()).collect();
                let missing =
                    state.routes.iter().filter(|(uid, (from, _))| *from == watch && !kept.contains(*uid));
                gone.extend(missing.map(|(uid, _)| uid.clone()));
                for uid in &gone {
                    state.remove(uid);
                }
                for route in all {
                    state.upsert(watch, route, now);
                }
            }
            Change::Applied(route) => state.upsert(watch, route, now),
            Change::Deleted(route) => {
                state.remove(&route.uid);
                gone.push(route.uid);
            }
        }
        gone
    }
}

impl State {
    fn upsert(&mut self, watch: usize, mut route: Route, now: Timestamp) {
        if let Some((_, before)) = self.routes.get(&route.uid) {
            route.ping_sent = if before.ping_stated == route.ping_stated {
                before.ping_sent
            } else {
                // Asked for just now. A clock that is wrong must not hide that a self-test is under way: what is to be told
                // is that it is wrong.
                route.ping_stated.map(|stated| if apart(stated, now) { now } else { stated })
            };
        }
        self.remove(&route.uid);
        let route = Arc::new(route);
        if route.token != [0; 32] {
            let owners = self.by_token.entry(route.token).or_default();
            owners.push(route.clone());
            // The one whose token it is cannot be told from copies: a delivery tells, by whose key has signed it.
            owners.sort_by(|a, b| (a.created, &a.uid).cmp(&(b.created, &b.uid)));
        }
        self.routes.insert(route.uid.clone(), (watch, route));
    }

    fn remove(&mut self, uid: &str) {
        let Some((_, route)) = self.routes.remove(uid) else { return };
        if let Some(owners) = self.by_token.get_mut(&route.token) {
            owners.retain(|owner| !Arc::ptr_eq(owner, &route));
            if owners.is_empty() {
                self.by_token.remove(&route.token);
            }
        }
    }
}

/// A GeminiWebhook without what the receiver does not read.
#[derive(Clone, Debug, Deserialize)]
pub struct SlimWebhook {
    #[serde(deserialize_with = "crate::api::meta::outline")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Lenient<SlimSpec>,
    #[serde(default)]
    status: Lenient<SlimStatus>,
}

/// The API server's schema holds, so that what cannot be read here was not there.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimSpec {
    mode: RegistrationMode,
    signature: Option<SignatureScheme>,
    tolerance: Lenient<GoDuration>,
    jwt: Lenient<Jwt>,
}

impl SlimSpec {
    fn policy(self, url: Option<String>) -> Policy {
        let Jwt { audience, issuer } = self.jwt.0.unwrap_or_default();
        let tolerance = self.tolerance.0.unwrap_or_else(default_tolerance);
        Policy {
            scheme: scheme(self.mode, self.signature),
            tolerance: i64::try_from(tolerance.0.as_secs()).unwrap_or(i64::MAX),
            // An empty audience is nobody's: a webhook without a URL has no token either.
            jwt: Expected { audience: audience.or(url).unwrap_or_default(), issuer },
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimStatus {
    path: Lenient<String>,
    url: Lenient<String>,
    last_ping: Lenient<LastPing>,
    last_delivery: Lenient<LastDelivery>,
}

impl SlimWebhook {
    /// The route of this object; `None` for one that the API server would not have let in.
    pub fn into_route(self, operator_namespace: &str) -> Option<Route> {
        Route::from_object(self, operator_namespace)
    }
}

impl Resource for SlimWebhook {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        GeminiWebhook::kind(&())
    }
    fn group((): &()) -> Cow<'_, str> {
        GeminiWebhook::group(&())
    }
    fn version((): &()) -> Cow<'_, str> {
        GeminiWebhook::version(&())
    }
    fn plural((): &()) -> Cow<'_, str> {
        GeminiWebhook::plural(&())
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn route(namespace: &str, uid: &str, token: &str, created: &str) -> Route {
        let object: SlimWebhook = serde_json::from_value(json!({
            "metadata": {"namespace": namespace, "name": "main", "uid": uid, "creationTimestamp": created},
            "spec": 7,
            "status": {"path": format!("/v1/h/{token}"), "lastPing": "broken", "lastDelivery": {"id": "a"}},
        }))
        .unwrap();
        object.into_route("operator").unwrap()
    }

    const EARLY: &str = "2026-01-01T00:00:00Z";
    const LATE: &str = "2026-02-01T00:00:00Z";

    fn apply(routes: &Routes, watch: usize, change: Change<Route>) -> Vec<Arc<str>> {
        routes.apply(watch, change, LATE.parse().unwrap())
    }

    #[test]
    fn a_self_test_is_seen_by_a_clock_that_is_wrong() {
        let pinged = |second: i64| {
            let mut route = route("a", "1", "t", EARLY);
            route.ping_stated = Some(Timestamp::from_second(second).unwrap());
            route.ping_sent = route.ping_stated;
            route
        };
        let routes = Routes::default();
        let sent = |stated: i64, now: i64| {
            let now = Timestamp::from_second(now).unwrap();
            routes.apply(0, Change::Applied(pinged(stated)), now);
            routes.get("1").unwrap().ping_sent.unwrap().as_second()
        };
        // An old one, at the start: nothing is known of when it appeared.
        assert_eq!(sent(1_000, 5_000), 1_000);
        assert_eq!(sent(5_010, 5_012), 5_010, "the clocks agree");
        assert_eq!(sent(5_010, 5_013), 5_010);
        assert_eq!(sent(5_700, 5_100), 5_100, "ours is ten minutes behind");
        assert_eq!(sent(5_700, 5_130), 5_100, "the same one, in a later version");
        assert_eq!(sent(5_800, 6_400), 6_400, "ahead");
    }

    #[test]
    fn paths() {
        for (path, token) in [
            ("/v1/h/abc", Some("abc")),
            ("/prefix/of/ingress/v1/h/abc", Some("abc")),
            ("v1/h/abc", None),
            ("/v1/h/", None),
            ("/v1/h/abc/", None),
            ("/v1/H/abc", None),
            ("/v2/h/abc", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(token_of(path), token, "{path}");
        }
        assert_eq!(token_of(&format!("/v1/h/{}", "a".repeat(65))), None);
    }

    #[test]
    fn follows_the_objects() {
        let routes = Routes::default();
        apply(
            &routes,
            0,
            Change::All(vec![route("a", "1", "t1", EARLY), route("operator", "2", "t2", EARLY)]),
        );
        assert_eq!(&*routes.find("t1")[0].uid, "1");
        assert!(routes.find("t1")[0].serves("a") && !routes.find("t1")[0].serves("b"));
        assert!(routes.find("t2")[0].serves("b"));
        assert!(routes.find("t3").is_empty() && routes.find("").is_empty());

        // Another watch's list does not touch these.
        assert!(apply(&routes, 1, Change::All(vec![route("c", "3", "t3", EARLY)])).is_empty());
        assert!(!routes.find("t1").is_empty() && !routes.find("t3").is_empty());

        // A new path replaces the old one.
        apply(&routes, 0, Change::Applied(route("a", "1", "t1b", EARLY)));
        assert!(routes.find("t1").is_empty() && !routes.find("t1b").is_empty());

        assert_eq!(apply(&routes, 0, Change::All(vec![route("a", "1", "t1b", EARLY)])), ["2".into()]);
        assert!(routes.find("t2").is_empty());
        apply(&routes, 0, Change::Deleted(route("a", "1", "t1b", EARLY)));
        assert!(routes.find("t1b").is_empty() && routes.get("1").is_none());
    }

    #[test]
    fn those_who_copied_a_path_come_after_who_is_older() {
        let routes = Routes::default();
        apply(&routes, 0, Change::Applied(route("evil", "0", "t", LATE)));
        apply(&routes, 0, Change::Applied(route("a", "9", "t", EARLY)));
        let all: Vec<_> = routes.find("t").iter().map(|route| route.uid.clone()).collect();
        assert_eq!(all, ["9".into(), "0".into()]);
        apply(&routes, 0, Change::Deleted(route("a", "9", "t", EARLY)));
        assert_eq!(&*routes.find("t").first().unwrap().uid, "0");
    }

    #[test]
    fn a_webhook_without_a_path_has_no_route() {
        let object: SlimWebhook =
            serde_json::from_value(json!({"metadata": {"namespace": "a", "name": "b", "uid": "1"}})).unwrap();
        let routes = Routes::default();
        apply(&routes, 0, Change::Applied(object.into_route("operator").unwrap()));
        assert!(routes.get("1").is_some());
        assert!(routes.state.read().unwrap().by_token.is_empty());
    }
}
