//! `helm install` of the chart, once for all tests of a run, and the ways in that it makes.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client};
use tokio::sync::{Mutex, OnceCell};

use crate::support::ingress::{self, Place, Route, values};
use crate::support::kubectl::{Said, run};
use crate::support::process::restrict_environment;
use crate::support::tls::{self, Certificate};
use crate::support::{CONTROLLER, Cluster, OPERATOR_NAMESPACE, RECEIVER, bed, tools};

/// Where the emulator listens: the node's address (`testenv/node/lib.sh`), which pods reach as they would reach Gemini.
pub const EMULATOR: &str = "10.99.0.1:8443";
const EMULATOR_HOST: &str = "10.99.0.1";

/// Where the ingress controller listens: at the node's address and the public's port, as one with `hostNetwork` does.
pub const WAY_IN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1)), 443);

/// Not the 60 of the light bed: a sweep every 10 s could be quicker than an event that finds no pod at first.
pub const TIMING_DIVISOR: u32 = 20;

const ROUTES: [Route; 2] = [Route::Ingress, Route::HttpRoute];

/// The operator in the cluster.
pub struct Installation {
    pub cluster: Cluster,
    /// What the emulator shows to the controller.
    pub gemini: Certificate,
    /// What the ingress controller, or the receiver itself, shows to the emulator.
    pub hooks: Certificate,
    /// Who ends TLS now.
    ends_tls: Mutex<Ends>,
}

/// Where TLS ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// At the ingress controller: the receiver speaks plain HTTP inside of the cluster, as it does by default.
    Before,
    /// At the receiver.
    There,
}

impl Installation {
    /// The release, for an ingress controller with its files in `dir`.
    pub fn place<'a>(&'a self, client: &'a Client, dir: &'a Path) -> Place<'a> {
        Place { cluster: &self.cluster, client, namespace: OPERATOR_NAMESPACE, dir, certificate: &self.hooks }
    }

    /// TLS ends there from now on.
    pub async fn end_tls(&self, wanted: Ends) -> Result<(), String> {
        let mut ends = self.ends_tls.lock().await;
        if *ends != wanted {
            let secret = if wanted == Ends::There { ingress::SECRET } else { "" };
            upgrade(&self.cluster, &[&format!("receiver.tls.secretName={secret}")]).await;
            rolled_out(&self.cluster).await?;
            *ends = wanted;
        }
        Ok(())
    }

    /// The receiver's Service, as it is when the receiver ends TLS.
    pub async fn service(&self) -> SocketAddr {
        let services: Api<Service> = Api::namespaced(self.cluster.admin().await, OPERATOR_NAMESPACE);
        let service = services.get(RECEIVER).await.expect("the chart has a Service");
        let address = service.spec.and_then(|spec| spec.cluster_ip).and_then(|ip| ip.parse().ok());
        SocketAddr::new(address.expect("the Service has an address"), 443)
    }
}

/// The installation of this run; the first caller makes it.
pub async fn installation() -> &'static Installation {
    static INSTALLED: OnceCell<Result<Installation, String>> = OnceCell::const_new();
    let installed = INSTALLED.get_or_init(install).await;
    installed.as_ref().unwrap_or_else(|problem| panic!("the chart is not installed: {problem}"))
}

async fn install() -> Result<Installation, String> {
    let bed = std::env::var_os("NODE_BED").map(PathBuf::from);
    let bed = bed.ok_or("these tests run inside of a node bed: make e2e-node")?;
    // The bed removes it with everything else, however this run ends.
    let dir = bed.join("tests");
    let certificate = |name: &str, host: &str| {
        let dir = dir.join(name);
        fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok::<_, String>(tls::make(&dir, host))
    };
    let gemini = certificate("gemini", EMULATOR_HOST)?;
    let hooks = certificate("hooks", bed::HOOKS_HOST)?;
    let mut cluster = Cluster::attach(bed.join("kubeconfig"), dir);
    cluster.audit_log = Some(bed.join("audit.log"));
    let kubectl = cluster.kubectl(OPERATOR_NAMESPACE);
    let namespace = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {OPERATOR_NAMESPACE}\n  labels:\n    \
         pod-security.kubernetes.io/enforce: restricted\n"
    );
    done("kubectl apply", kubectl.apply(&namespace).await)?;
    let ca = format!("--from-file=ca.crt={}", gemini.ca.display());
    done("kubectl create", kubectl.run(&["create", "configmap", "gemini-ca", &ca]).await)?;
    let installation = Installation { cluster, gemini, hooks, ends_tls: Mutex::new(Ends::Before) };
    let cluster = &installation.cluster;
    let client = cluster.admin().await;
    let place = installation.place(&client, &cluster.dir);
    for route in ROUTES {
        place.prepare(route, WAY_IN.port()).await;
    }

    // The image is not among the values: the chart's own default is what `make image` makes.
    let base_url = format!("gemini.baseUrl=https://{EMULATOR}");
    let divisor = format!("timingDivisor={TIMING_DIVISOR}");
    let jwks_url = format!("gemini.jwksUrl=https://{EMULATOR}/.well-known/jwks.json");
    let set = [base_url.as_str(), &jwks_url, "gemini.caConfigMap.name=gemini-ca", &divisor];
    // Both at once: a test chooses the one that its ingress controller reads.
    let ways: Vec<String> = ROUTES.into_iter().flat_map(|route| values(route, OPERATOR_NAMESPACE)).collect();
    let mut arguments = vec!["install", "gemini-operator", "charts/gemini-operator"];
    arguments.extend(ways.iter().map(String::as_str));
    arguments.extend(set.iter().flat_map(|value| ["--set", value]));
    let said = run(helm(cluster, &arguments), "").await;
    if said.stderr.contains("PodSecurity") {
        return Err(format!("helm was warned: {}", said.stderr));
    }
    done("helm install", said)?;
    available(cluster).await?;
    Ok(installation)
}

/// `helm upgrade` to these values beside the ones that are set.
pub async fn upgrade(cluster: &Cluster, set: &[&str]) {
    let mut arguments = vec!["upgrade", "gemini-operator", "charts/gemini-operator", "--reuse-values"];
    arguments.extend(set.iter().flat_map(|value| ["--set", value]));
    run(helm(cluster, &arguments), "").await.expect();
}

/// Waits until both Deployments are Available.
pub async fn available(cluster: &Cluster) -> Result<(), String> {
    let both = [format!("deployment/{CONTROLLER}"), format!("deployment/{RECEIVER}")];
    let wait = ["wait", "--for=condition=Available", "--timeout=180s", &both[0], &both[1]];
    let said = cluster.kubectl(OPERATOR_NAMESPACE).run(&wait).await;
    if said.ok { Ok(()) } else { Err(format!("{}\n{}", said.stderr, state_of_pods(cluster))) }
}

/// Waits until no pod of both Deployments is of an earlier version.
pub async fn rolled_out(cluster: &Cluster) -> Result<(), String> {
    for deployment in [CONTROLLER, RECEIVER] {
        let wait = ["rollout", "status", "--timeout=180s", &format!("deployment/{deployment}")];
        let said = cluster.kubectl(OPERATOR_NAMESPACE).run(&wait).await;
        if !said.ok {
            return Err(format!("{}\n{}", said.stderr, state_of_pods(cluster)));
        }
    }
    Ok(())
}

/// helm as a person would call it, but without that person's settings.
fn helm(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = Command::new(tools::helm());
    restrict_environment(&mut command);
    for home in ["HELM_CONFIG_HOME", "HELM_CACHE_HOME", "HELM_DATA_HOME"] {
        command.env(home, cluster.dir.join("helm"));
    }
    command.current_dir(tools::root()).arg("--kubeconfig").arg(&cluster.kubeconfig);
    command.args(["--namespace", OPERATOR_NAMESPACE]).args(arguments);
    command
}

/// The output of a command that had to succeed.
fn done(what: &str, said: Said) -> Result<String, String> {
    if said.ok { Ok(said.stdout) } else { Err(format!("{what}: {}{}", said.stdout, said.stderr)) }
}

/// Pods, events and logs of the operator, as text for a person.
pub fn state_of_pods(cluster: &Cluster) -> String {
    let kubectl = cluster.kubectl(OPERATOR_NAMESPACE);
    let show = |arguments: &[&str]| {
        // Not by tokio: this is also asked for while a panic unwinds.
        let output = kubectl.command(arguments).output();
        let text = output
            .map(|o| format!("{}{}", String::from_utf8_lossy(&o.stdout), String::from_utf8_lossy(&o.stderr)));
        let text = text.unwrap_or_else(|error| error.to_string());
        format!("--- kubectl {}\n{text}\n", arguments.join(" "))
    };
    let logs = |process: &str| {
        let selector = format!("--selector=app.kubernetes.io/component={process}");
        show(&["logs", &selector, "--prefix", "--tail=40"])
    };
    show(&["get", "pods", "--output=wide"])
        + &show(&["get", "events", "--sort-by=.metadata.creationTimestamp"])
        + &logs("controller")
        + &logs("receiver")
}
