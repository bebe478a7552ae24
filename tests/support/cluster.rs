//! The cluster under test: one control plane for the whole run, with the rendered chart installed.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;
use std::{fs, io};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::kubectl::Kubectl;
use super::process::{Process, restrict_environment, tail};
use super::{install_crypto, poll, tools};

/// The namespace that `deploy/install.yaml` installs into, and the names of its ServiceAccounts.
pub const OPERATOR_NAMESPACE: &str = "gemini-operator-system";
pub const CONTROLLER: &str = "gemini-operator-controller";
pub const RECEIVER: &str = "gemini-operator-receiver";
/// What a run makes on a cluster carries this label with the run's process id: so it can be found, and removed.
pub const BED_LABEL: &str = "gemini-operator.io/bed";

/// A start takes 3 s; a busy machine gets its chance.
const START: Duration = Duration::from_mins(3);

/// A cluster with the operator's manifests in it.
pub struct Cluster {
    /// Admin's kubeconfig.
    pub kubeconfig: PathBuf,
    /// Files of this run.
    pub dir: PathBuf,
    /// The API server's audit log; not there on a cluster that is not ours.
    pub audit_log: Option<PathBuf>,
    /// Its `--parent-pid` ends it with this program, however that ends; dropping it, before.
    process: Mutex<Option<Process>>,
}

/// The cluster of this run: `TEST_KUBECONFIG`'s, or a control plane that the first caller starts.
pub async fn cluster() -> &'static Cluster {
    static CLUSTER: OnceCell<Result<Cluster, String>> = OnceCell::const_new();
    let cluster = CLUSTER.get_or_init(async || match std::env::var_os("TEST_KUBECONFIG") {
        Some(path) => Cluster::existing(path.into()).await,
        None => Cluster::start().await,
    });
    cluster.await.as_ref().unwrap_or_else(|problem| panic!("no cluster to test on: {problem}"))
}

impl Cluster {
    /// Starts a control plane and installs the operator's manifests before its garbage collector looks for
    /// kinds.
    pub async fn start() -> Result<Self, String> {
        Self::start_in(fresh_dir()?).await
    }

    /// The same with files in `dir`, whose path has to be short.
    pub async fn start_in(dir: PathBuf) -> Result<Self, String> {
        install_crypto();
        let mut process = up(&dir, &["--hold-controllers"])?;
        wait_for_file(&mut process, &dir, "api-ready").await?;
        let cluster = Self {
            kubeconfig: dir.join("kubeconfig"),
            audit_log: Some(dir.join("audit.log")),
            dir: dir.clone(),
            process: Mutex::default(),
        };
        cluster.install().await?;
        fs::write(dir.join("go"), "").map_err(|error| error.to_string())?;
        wait_for_file(&mut process, &dir, "ready").await?;
        Ok(Self { process: Mutex::new(Some(process)), ..cluster })
    }

    /// Stops the control plane at once, as a power cut would.
    pub async fn stop(&self) -> Result<(), String> {
        drop(self.process.lock().expect("nobody panics with this lock").take());
        // Its parts die with it, a moment later.
        let gone = poll(super::PATIENCE, async || {
            let alive: Vec<_> = pids(&self.dir).into_iter().filter(is_alive).collect();
            if alive.is_empty() { Ok(()) } else { Err(format!("still there: {alive:?}")) }
        });
        gone.await
    }

    /// Starts a stopped control plane on what its folder holds.
    pub async fn resume(&self) -> Result<(), String> {
        // What says that it is ready is the last run's.
        let _ = fs::remove_file(self.dir.join("ready"));
        let server = Kubeconfig::read_from(&self.kubeconfig).map_err(|error| error.to_string())?;
        let server = server.clusters.first().and_then(|c| c.cluster.as_ref()?.server.clone());
        let port = server.as_deref().and_then(|server| server.rsplit_once(':')).map(|(_, port)| port);
        let mut process =
            up(&self.dir, &["--resume", "--api-port", port.ok_or("no port in its kubeconfig")?])?;
        wait_for_file(&mut process, &self.dir, "ready").await?;
        *self.process.lock().expect("nobody panics with this lock") = Some(process);
        Ok(())
    }

    /// etcd's data, to be copied and put back while nothing runs.
    pub fn etcd_data(&self) -> PathBuf {
        self.dir.join("etcd")
    }

    /// Installs the operator's manifests in a cluster that somebody else runs.
    pub async fn existing(kubeconfig: PathBuf) -> Result<Self, String> {
        let cluster = Self::attach(kubeconfig, fresh_dir()?);
        cluster.install().await?;
        Ok(cluster)
    }

    /// A cluster that somebody else runs, as it is; `dir` is for the files of this run.
    pub fn attach(kubeconfig: PathBuf, dir: PathBuf) -> Self {
        install_crypto();
        Self { kubeconfig, dir, audit_log: None, process: Mutex::default() }
    }

    /// Ends the control plane, if it is ours, and removes the files of this run.
    pub async fn end(&self) -> Result<(), String> {
        drop(self.process.lock().expect("nobody panics with this lock").take());
        // Its parts die with it, a moment later; until then they write here.
        let gone = poll(super::PATIENCE, async || match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        });
        gone.await.map_err(|error| format!("{}: {error}", self.dir.display()))
    }

    async fn install(&self) -> Result<(), String> {
        let kubectl = self.kubectl("");
        let apply = ["apply", "--server-side", "--force-conflicts", "--field-manager=install", "-f"];
        for path in ["crds", "deploy/install.yaml"] {
            let path = tools::root().join(path);
            let said = kubectl.run(&[&apply[..], &[&path.to_string_lossy()]].concat()).await;
            if !said.ok {
                return Err(format!("kubectl apply -f {}: {}", path.display(), said.stderr));
            }
        }
        let crds = ["crd/geminibatches.gemini-operator.io", "crd/geminiwebhooks.gemini-operator.io"];
        let wait = ["wait", "--for=condition=Established", "--timeout=60s"];
        let said = kubectl.run(&[&wait[..], &crds[..]].concat()).await;
        if !said.ok {
            return Err(said.stderr);
        }
        // Established is not yet shown to everybody. This asks the API server and not kubectl's cache, and renews that one.
        let shown = poll(super::PATIENCE, async || {
            let ask = ["api-resources", "--api-group=gemini-operator.io", "--output=name"];
            let said = kubectl.run(&ask).await;
            let all = crds.iter().all(|crd| said.stdout.contains(crd.trim_start_matches("crd/")));
            if all { Ok(()) } else { Err(said.stderr) }
        });
        shown.await.map_err(|problem| format!("the API server does not show our kinds: {problem}"))
    }

    /// A client with all rights; one for each test, as its connections belong to the test's runtime.
    pub async fn admin(&self) -> Client {
        client(&self.kubeconfig).await
    }

    /// kubectl with all rights.
    pub fn kubectl<'a>(&'a self, namespace: &'a str) -> Kubectl<'a> {
        // The credentials of somebody else's cluster may come from a plugin, which wants its environment.
        let bare = self.audit_log.is_some();
        Kubectl { kubeconfig: &self.kubeconfig, namespace, cache: &self.dir, bare }
    }

    /// Makes a namespace that nobody else uses and returns its name.
    pub async fn make_namespace(&self, client: &Client, name: &str) -> String {
        let stem: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let labels = json!({ BED_LABEL: std::process::id().to_string() });
        let metadata = json!({"generateName": format!("{stem}-"), "labels": labels});
        let namespace: Namespace = from_json(json!({ "metadata": metadata }));
        let made = Api::all(client.clone()).create(&PostParams::default(), &namespace).await;
        made.expect("a namespace can be made").metadata.name.expect("the API server gave a name")
    }

    /// Writes a kubeconfig with a fresh token of one of the chart's ServiceAccounts.
    pub async fn kubeconfig_of(&self, client: &Client, account: &str, path: &Path) {
        self.kubeconfig_in(client, OPERATOR_NAMESPACE, account, path).await;
    }

    /// The same for a ServiceAccount of any namespace.
    pub async fn kubeconfig_in(&self, client: &Client, namespace: &str, account: &str, path: &Path) {
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: vec![],
                expiration_seconds: Some(7200),
                bound_object_ref: None,
            },
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        let answer = accounts
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .unwrap_or_else(|error| panic!("a token for {namespace}/{account}: {error}"));
        let token = answer.status.expect("a TokenRequest is answered with a token").token;

        let admin = Kubeconfig::read_from(&self.kubeconfig).expect("the admin's kubeconfig can be read");
        let context = admin.current_context.as_deref().unwrap_or_default();
        let context = admin.contexts.iter().find(|c| c.name == context).and_then(|c| c.context.as_ref());
        let name = context.map(|c| c.cluster.as_str()).expect("the kubeconfig has a current context");
        let server = admin.clusters.iter().find(|c| c.name == name).expect("the kubeconfig has its cluster");
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [server],
            "users": [{"name": account, "user": {"token": token}}],
            "contexts": [{"name": account, "context": {"cluster": name, "user": account}}],
            "current-context": account,
        });
        fs::write(path, config.to_string()).expect("the kubeconfig can be written");
    }
}

fn up(dir: &Path, more: &[&str]) -> Result<Process, String> {
    fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let mut command = std::process::Command::new(tools::controlplane());
    restrict_environment(&mut command);
    command.args(["up", "--parent-pid", &std::process::id().to_string(), "--dir"]).arg(dir).args(more);
    Process::start("controlplane", dir, command).map_err(|error| error.to_string())
}

/// Process ids that a control plane left in its folder.
fn pids(dir: &Path) -> Vec<String> {
    let files = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "pid"));
    files.filter_map(|path| Some(fs::read_to_string(path).ok()?.trim().to_owned())).collect()
}

#[allow(clippy::ptr_arg)] // As `filter` wants it.
fn is_alive(pid: &String) -> bool {
    Path::new("/proc").join(pid).exists()
}

/// A client for the current context of a kubeconfig.
pub async fn client(kubeconfig: &Path) -> Client {
    install_crypto();
    let config = Kubeconfig::read_from(kubeconfig).expect("the kubeconfig can be read");
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await;
    Client::try_from(config.expect("the kubeconfig is usable")).expect("a client can be made")
}

/// A typed object out of JSON.
pub fn from_json<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the object fits its type")
}

async fn wait_for_file(process: &mut Process, dir: &Path, name: &str) -> Result<(), String> {
    let path = dir.join(name);
    let seen = poll(START, async || {
        if path.exists() {
            return Ok(Ok(()));
        }
        process.ended().map(Err).ok_or(())
    })
    .await;
    let log = || tail(&dir.join("controlplane.log"), 30);
    match seen {
        Ok(Ok(())) => Ok(()),
        Ok(Err(status)) => Err(format!("the control plane ended with {status}:\n{}", log())),
        Err(()) => Err(format!("the control plane is not up after {START:?} (no {name}):\n{}", log())),
    }
}

/// A folder for this run, with a short path: a unix socket's has to stay below 108 bytes. Those of runs
/// whose process is gone are removed; a killed run cannot tidy up itself.
pub fn fresh_dir() -> Result<PathBuf, String> {
    const STEM: &str = "gemini-bed-";
    let temp = std::env::temp_dir();
    for entry in fs::read_dir(&temp).map_err(|error| error.to_string())?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(STEM)) else { continue };
        if pid.parse::<u32>().is_ok_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            // Somebody else's, or just being removed by another run: not our business.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let dir = temp.join(format!("{STEM}{}", std::process::id()));
    fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    Ok(dir)
}
