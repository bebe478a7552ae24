//! A proxy between one Kubernetes client and its API server that can lie, lose, delay and stop: what a client of the real
//! one may live to see.
//!
//! Plain HTTP/1.1 on loopback towards the client, TLS towards the API server. The client's own bearer token is passed on,
//! so its rights stay what they are.

mod breakpoint;
mod log;
mod request;
mod rules;
mod serve;
mod snapshot;
mod status;
#[cfg(test)]
mod tests;
mod upstream;
mod watching;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpListener;

pub use breakpoint::{Breakpoint, Go, Hold, Point};
pub use log::{Event, Log, Request};
pub use request::{Target, Verb};
pub use rules::{Fault, Rule, RuleId};
pub use snapshot::Snapshot;
pub use upstream::Error;

use serve::Shared;
use upstream::{Upstream, at};

/// A running proxy; dropped, it ends with everything that runs for it.
pub struct Kproxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Of the account that a kubeconfig was last written for.
    token: Mutex<Option<String>>,
}

impl Kproxy {
    /// Towards the API server of this kubeconfig (in JSON). The process has chosen its TLS provider.
    pub async fn start(upstream: &Path) -> Result<Self, Error> {
        let shared = Arc::new(Shared::new(Upstream::read(upstream)?));
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(at("127.0.0.1"))?;
        let address = listener.local_addr().map_err(at("127.0.0.1"))?;
        shared.spawn(serve::accept(Arc::clone(&shared), listener));
        Ok(Self { address, shared, token: Mutex::default() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Writes the kubeconfig of `account` (in JSON) to `path`, leading through this proxy.
    pub fn kubeconfig(&self, path: &Path, account: &Path) -> Result<(), Error> {
        let (config, token) = upstream::redirect(account, &self.address.to_string())?;
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
        fs::write(path, config.to_string()).map_err(at(path.display()))
    }

    /// From now on. Of several rules that fit, the first one that was added.
    pub fn add(&self, rule: Rule) -> RuleId {
        self.shared.rules.add(rule)
    }

    /// Takes a rule back; what stood still because of it goes on.
    pub fn remove(&self, id: RuleId) {
        self.shared.rules.keep(|other| other != id);
    }

    /// Takes all rules back.
    pub fn clear(&self) {
        self.shared.rules.keep(|_| false);
    }

    /// How often a rule was applied.
    pub fn fired(&self, id: RuleId) -> u64 {
        self.shared.rules.fired(id)
    }

    /// Holds what `rule` (made from this hold) is for, at this point.
    pub fn breakpoint(&self, point: Point, rule: impl FnOnce(Fault) -> Rule) -> Breakpoint {
        let (hold, breakpoint) = breakpoint::breakpoint(point);
        self.add(rule(Fault::Hold(hold)));
        breakpoint
    }

    /// A collection as it is now, by its path (`/apis/GROUP/VERSION/namespaces/NAMESPACE/RESOURCE`), read with the token of
    /// the account that a kubeconfig was last written for.
    pub async fn remember(&self, collection: &str) -> Result<Snapshot, Error> {
        let upstream = &self.shared.upstream;
        let mut request = upstream.http.get(format!("{}{collection}", upstream.base));
        let token = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.and_then(reqwest::Response::error_for_status);
        let list = answer.map_err(at(collection))?.json().await.map_err(at(collection))?;
        Ok(Snapshot::new(list))
    }

    /// Everything that went through so far.
    pub fn log(&self) -> Log {
        self.shared.log.all()
    }
}

impl Drop for Kproxy {
    fn drop(&mut self) {
        self.shared.end();
    }
}
