//! `helm install` of the chart, once for all tests of a run.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use k8s_openapi::api::core::v1::Service;
use kube::Api;
use tokio::sync::OnceCell;

use crate::support::kubectl::{Said, run};
use crate::support::process::restrict_environment;
use crate::support::tls::{self, Certificate};
use crate::support::{CONTROLLER, Cluster, OPERATOR_NAMESPACE, RECEIVER, bed, tools};

/// Where the emulator listens: the node's address (`testenv/node/lib.sh`), which pods reach as they would reach Gemini.
pub const EMULATOR: &str = "10.99.0.1:8443";
const EMULATOR_HOST: &str = "10.99.0.1";

/// The operator in the cluster.
pub struct Installation {
    pub cluster: Cluster,
    /// What the emulator shows to the controller.
    pub gemini: Certificate,
    /// What the receiver shows to the emulator.
    pub hooks: Certificate,
    /// The receiver's Service.
    pub service: SocketAddr,
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
    let cluster = Cluster::attach(bed.join("kubeconfig"), dir);

    let kubectl = cluster.kubectl(OPERATOR_NAMESPACE);
    let namespace = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {OPERATOR_NAMESPACE}\n  labels:\n    \
         pod-security.kubernetes.io/enforce: restricted\n"
    );
    done("kubectl apply", kubectl.apply(&namespace).await)?;
    let ca = format!("--from-file=ca.crt={}", gemini.ca.display());
    done("kubectl create", kubectl.run(&["create", "configmap", "gemini-ca", &ca]).await)?;
    let (cert, key) = (format!("--cert={}", hooks.cert.display()), format!("--key={}", hooks.key.display()));
    done("kubectl create", kubectl.run(&["create", "secret", "tls", "receiver-tls", &cert, &key]).await)?;

    // The image is not among the values: the chart's own default is what `make image` makes.
    let base_url = format!("gemini.baseUrl=https://{EMULATOR}");
    let jwks_url = format!("gemini.jwksUrl=https://{EMULATOR}/.well-known/jwks.json");
    let values = [
        base_url.as_str(),
        jwks_url.as_str(),
        "gemini.caConfigMap.name=gemini-ca",
        "receiver.tls.secretName=receiver-tls",
        // Not the 60 of the light bed: a sweep every 10 s could be quicker than an event that finds no pod at first.
        "timingDivisor=20",
    ];
    let mut arguments = vec!["install", "gemini-operator", "charts/gemini-operator"];
    arguments.extend(values.iter().flat_map(|value| ["--set", value]));
    let said = run(helm(&cluster, &arguments), "").await;
    if said.stderr.contains("PodSecurity") {
        return Err(format!("helm was warned: {}", said.stderr));
    }
    done("helm install", said)?;
    available(&cluster).await?;

    let services: Api<Service> = Api::namespaced(cluster.admin().await, OPERATOR_NAMESPACE);
    let service = services.get(RECEIVER).await.map_err(|error| error.to_string())?;
    let address = service.spec.and_then(|spec| spec.cluster_ip).and_then(|ip| ip.parse().ok());
    let address = address.ok_or("the receiver's Service has no address")?;
    Ok(Installation { cluster, gemini, hooks, service: SocketAddr::new(address, 443) })
}

/// Waits until both Deployments are Available.
pub async fn available(cluster: &Cluster) -> Result<(), String> {
    let both = [format!("deployment/{CONTROLLER}"), format!("deployment/{RECEIVER}")];
    let wait = ["wait", "--for=condition=Available", "--timeout=180s", &both[0], &both[1]];
    let said = cluster.kubectl(OPERATOR_NAMESPACE).run(&wait).await;
    if said.ok { Ok(()) } else { Err(format!("{}\n{}", said.stderr, state_of_pods(cluster))) }
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
