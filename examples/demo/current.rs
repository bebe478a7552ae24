//! `CLUSTER=current`: the demo on a cluster that is not its own. It changes nothing that it finds there, marks what it
//! adds, and removes just that.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::say;
use crate::support::cluster::{BED_LABEL, fresh_dir};
use crate::support::kubectl::Kubectl;
use crate::support::{Cluster, OPERATOR_NAMESPACE, tools};

/// Not installed: pods would run the operator a second time, and that one would talk to Google.
const NOT_INSTALLED: [&str; 2] = ["Deployment", "PodDisruptionBudget"];
/// What the controller makes in its own namespace.
const OWN_SECRETS: [&str; 2] = ["gemini-operator-identity", "gemini-operator-signing"];
const KINDS: &str = "geminibatches,geminiwebhooks";
const KIND_DEFINITION: &str = "CustomResourceDefinition";

/// The cluster of the current context.
pub struct Current {
    kubeconfig: PathBuf,
    dir: PathBuf,
    /// Secrets of the operator that were there.
    secrets: String,
}

impl Current {
    /// Names it, and looks whether the demo may work there. With `CLEAN=1` what an earlier one left is no hindrance.
    pub async fn find() -> Result<Self, String> {
        let context = ask(&["config", "current-context"])?;
        let config = ask(&["config", "view", "--raw", "--minify", "--flatten", "--output=json"])?;
        let parsed: Value =
            serde_json::from_str(&config).map_err(|error| format!("kubectl config view: {error}"))?;
        let server = parsed["clusters"][0]["cluster"]["server"].as_str().unwrap_or("(no server)");
        say(&format!("using kubectl's current context {context}: {server}"));

        let dir = fresh_dir()?;
        let kubeconfig = dir.join("kubeconfig");
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&kubeconfig);
        let written = file.and_then(|mut file| file.write_all(config.as_bytes()));
        written.map_err(|error| format!("{}: {error}", kubeconfig.display()))?;
        let mut this = Self { kubeconfig, dir, secrets: String::new() };

        this.run(&["get", "--raw=/version", "--request-timeout=10s"])
            .await
            .map_err(|said| format!("the cluster of context {context} does not answer: {said}"))?;
        let label = "--selector=app.kubernetes.io/name=gemini-operator";
        let installed = this.run(&["get", "deployments", "--all-namespaces", label, "--output=name"]).await?;
        if !installed.is_empty() {
            return Err(format!(
                "gemini-operator is installed in this cluster already ({}), and two controllers would work on the \
                 demo's batches; choose another context",
                installed.replace('\n', ", ")
            ));
        }
        let left = this.run(&["get", "namespaces", "--selector", BED_LABEL, "--output=name"]).await?;
        let clean = std::env::var_os("CLEAN").is_some_and(|clean| clean == "1");
        if !clean && (!left.is_empty() || this.present().await?.iter().any(is_ours)) {
            return Err(format!(
                "another demo runs in this cluster, or was killed there ({}); if nobody runs one: \
                 make demo CLUSTER=current CLEAN=1",
                left.replace('\n', ", ")
            ));
        }
        let names =
            [
                &["get", "--namespace", OPERATOR_NAMESPACE, "--ignore-not-found", "--output=name", "secrets"]
                    [..],
            ];
        this.secrets = this.run(&[&names.concat()[..], &OWN_SECRETS[..]].concat()).await?;
        Ok(this)
    }

    /// For the bed.
    pub fn cluster(&self) -> Cluster {
        Cluster::attach(self.kubeconfig.clone(), self.dir.clone())
    }

    /// Adds what is missing of the operator's manifests.
    pub async fn install(&self) -> Result<(), String> {
        let manifests = install_yaml();
        let all =
            self.run(&["create", "--dry-run=client", "--output=json", "--filename", &manifests]).await?;
        let present: Vec<_> = self.present().await?.iter().map(identity).collect();
        let mut missing = objects(&all)?;
        missing.retain(|object| !NOT_INSTALLED.contains(&text(&object["kind"])));
        let wanted = missing.len();
        missing.retain(|object| !present.contains(&identity(object)));
        say(&format!(
            "installing deploy/install.yaml without its Deployments: {} objects; {} were there and stay as they are",
            missing.len(),
            wanted - missing.len()
        ));
        if missing.is_empty() {
            return Ok(());
        }
        for object in &mut missing {
            object["metadata"]["labels"][BED_LABEL] = json!(std::process::id().to_string());
        }
        let file = self.file_of(&missing)?;
        self.run(&["apply", "--server-side", "--field-manager=gemini-demo", "--filename", &file]).await?;
        let crds = ["crd/geminibatches.gemini-operator.io", "crd/geminiwebhooks.gemini-operator.io"];
        let wait = ["wait", "--for=condition=Established", "--timeout=60s"];
        self.run(&[&wait[..], &crds[..]].concat()).await.map(drop)
    }

    /// Deletes batches and webhooks, as long as there is a controller to let them go.
    pub async fn delete_objects(&self, namespace: &str) {
        say(&format!("deleting the batches and the webhook in namespace {namespace}"));
        let delete = ["delete", KINDS, "--all", "--timeout=30s", "--namespace", namespace];
        if let Err(said) = self.run(&delete).await {
            eprintln!("demo: {said}; they go without the controller's leave");
        }
    }

    /// Removes what the demo added; with `CLEAN=1`, what any demo added.
    pub async fn remove(&self) -> Result<(), String> {
        let selector = match std::env::var_os("CLEAN") {
            Some(clean) if clean == "1" => BED_LABEL.to_owned(),
            _ => format!("{BED_LABEL}={}", std::process::id()),
        };
        let namespaces = self.run(&["get", "namespaces", "--selector", &selector, "--output=name"]).await?;
        let ours: Vec<Value> = self.present().await?.into_iter().filter(is_ours).collect();
        let added = ours.len();
        for namespace in namespaces.lines() {
            self.release(namespace.trim_start_matches("namespace/")).await?;
        }
        self.run(&["delete", "namespaces", "--selector", &selector, "--timeout=90s"]).await?;
        let is_kind = |object: &Value| object["kind"] == KIND_DEFINITION;
        let (kinds, others): (Vec<_>, Vec<_>) = ours.into_iter().partition(is_kind);
        self.delete(&others).await?;
        if !kinds.is_empty() {
            let users = self.run(&["get", KINDS, "--all-namespaces", "--output=name"]).await?;
            if users.is_empty() {
                self.delete(&kinds).await?;
            } else {
                say("the CustomResourceDefinitions stay: somebody has made objects of them meanwhile");
            }
        }
        // Where the namespace was there before, the controller's Secrets are all that is left of the demo in it.
        if !others.iter().any(|object| object["kind"] == "Namespace") {
            for name in OWN_SECRETS.iter().filter(|name| !self.secrets.contains(**name)) {
                let delete =
                    ["delete", "secret", name, "--ignore-not-found", "--namespace", OPERATOR_NAMESPACE];
                self.run(&delete).await?;
            }
        }
        let mut removed: Vec<_> = namespaces.lines().map(ToOwned::to_owned).collect();
        removed.push(format!("{added} objects of deploy/install.yaml that the demo had added"));
        say(&format!("removed from the cluster: {}", removed.join(", ")));
        Ok(())
    }

    /// Objects whose controller is gone keep their namespace for ever: their jobs were the emulator's, and went with it.
    async fn release(&self, namespace: &str) -> Result<(), String> {
        let here = ["--namespace", namespace];
        let get = ["get", KINDS, "--output=name"];
        // Without the kinds there are no objects of them.
        let left = self.run(&[&get[..], &here].concat()).await.unwrap_or_default();
        for name in left.lines() {
            let patch = ["patch", name, "--type=merge", "--patch", r#"{"metadata":{"finalizers":null}}"#];
            self.run(&[&patch[..], &here].concat()).await?;
        }
        Ok(())
    }

    async fn delete(&self, some: &[Value]) -> Result<(), String> {
        if some.is_empty() {
            return Ok(());
        }
        let file = self.file_of(some)?;
        self.run(&["delete", "--ignore-not-found", "--timeout=60s", "--filename", &file]).await.map(drop)
    }

    /// Those objects of the manifests that the cluster has.
    async fn present(&self) -> Result<Vec<Value>, String> {
        let get = ["get", "--ignore-not-found", "--output=json", "--filename", &install_yaml()];
        objects(&self.run(&get).await?)
    }

    fn file_of(&self, some: &[Value]) -> Result<String, String> {
        let path = self.dir.join("objects.json");
        // One after the other: of a List kubectl validates the items itself, and knows less than the API server.
        let documents: Vec<String> = some.iter().map(Value::to_string).collect();
        fs::write(&path, documents.join("\n")).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path.to_string_lossy().into_owned())
    }

    async fn run(&self, args: &[&str]) -> Result<String, String> {
        let kubectl = Kubectl { kubeconfig: &self.kubeconfig, namespace: "", cache: &self.dir, bare: false };
        let said = kubectl.run(args).await;
        if said.ok { Ok(said.stdout.trim().to_owned()) } else { Err(last_line(&said.stderr)) }
    }
}

/// kubectl as the person who started the demo has set it up.
fn ask(args: &[&str]) -> Result<String, String> {
    let output = Command::new(tools::kubectl()).args(args).output();
    let output = output.map_err(|error| format!("{}: {error}", tools::kubectl().display()))?;
    if !output.status.success() {
        let said = last_line(&String::from_utf8_lossy(&output.stderr));
        return Err(format!(
            "CLUSTER=current: kubectl has no usable current context ({said}); choose one by kubectl config use-context"
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn install_yaml() -> String {
    tools::root().join("deploy/install.yaml").to_string_lossy().into_owned()
}

/// kubectl prints one object, a List, or one after the other.
fn objects(printed: &str) -> Result<Vec<Value>, String> {
    let mut all = vec![];
    for value in serde_json::Deserializer::from_str(printed).into_iter::<Value>() {
        let mut value = value.map_err(|error| format!("kubectl printed no JSON: {error}"))?;
        match value.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => all.extend(items),
            _ => all.push(value),
        }
    }
    Ok(all)
}

fn identity(object: &Value) -> (String, String, String) {
    let metadata = &object["metadata"];
    (text(&object["kind"]).into(), text(&metadata["namespace"]).into(), text(&metadata["name"]).into())
}

fn is_ours(object: &Value) -> bool {
    object["metadata"]["labels"].get(BED_LABEL).is_some()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn last_line(said: &str) -> String {
    said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("kubectl said nothing").to_owned()
}
