//! One test's own namespace, emulator, receiver and controller.

use std::fs;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gemini_operator::api::keyring::KEYRING_SECRET;
use gemini_operator::api::{GeminiBatch, GeminiWebhook, condition};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Secret};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::cluster::{CONTROLLER, Cluster, OPERATOR_NAMESPACE, RECEIVER, cluster, from_json};
use super::emulator::{Emulator, EmulatorOptions, Ledger};
use super::front::Front;
use super::kubectl::Kubectl;
use super::process::{Process, command, tail};
use super::{audit, poll, tls, tools};

/// Host name of the receiver, known to the emulator by `--resolve`.
pub const HOOKS_HOST: &str = "hooks.test";

/// The Google project of the bed's API key.
pub const PROJECT: &str = "bed";

/// How a bed differs from the usual one.
#[derive(Clone, Debug)]
pub struct BedOptions {
    /// How long a job takes at the emulator.
    pub job_time: String,
    /// All time windows of the operator are divided by this.
    pub timing_divisor: u32,
    /// Fault plan of the emulator from its start.
    pub faults: Option<Value>,
    /// A key that nobody else uses: it must turn up nowhere but in its Secret.
    pub api_key: String,
    /// More keys that the emulator takes, each with its project; `api_key` belongs to [`PROJECT`].
    pub more_api_keys: Vec<(String, String)>,
    /// Start controller and receiver at once.
    pub operator: bool,
    /// Namespaces that controller and receiver watch beside the bed's own.
    pub also_watch: Vec<String>,
    /// More arguments for the controller.
    pub controller_args: Vec<String>,
    /// Deliveries go there, and not to the bed's front: to something that ends TLS, so the receiver speaks none.
    pub way_in: Option<SocketAddr>,
    /// Deliveries to a job's own address are JWTs, and have no Ed25519 signatures.
    pub jwt: bool,
}

impl Default for BedOptions {
    fn default() -> Self {
        Self {
            job_time: "1s".into(),
            timing_divisor: 60,
            faults: None,
            api_key: "AIza-canary-api-key-of-the-bed".into(),
            more_api_keys: vec![],
            operator: true,
            also_watch: vec![],
            controller_args: vec![],
            way_in: None,
            jwt: false,
        }
    }
}

/// One test's own namespace and emulator: what it has wherever the operator runs.
pub struct Room {
    pub cluster: &'static Cluster,
    pub client: Client,
    pub namespace: String,
    pub emulator: Emulator,
    pub dir: PathBuf,
    /// What the API server was asked since this room is there; `None` on a cluster that is not ours.
    pub asked: Option<audit::Since>,
    /// The ends of the operator's logs, and what else says why something did not happen.
    pub why: fn(&Room) -> String,
}

/// Everything that one test needs, the operator as processes of its own included; ends with it.
pub struct Bed {
    pub room: Room,
    pub options: BedOptions,
    pub front: Front,
    /// `None` while it is down.
    pub controller: Option<Process>,
    /// `None` while it is down.
    pub receiver: Option<Process>,
    /// Where the running ones answer probes and metrics.
    pub controller_admin: String,
    pub receiver_admin: String,
    /// Signs what the receiver, or who stands before it, shows to the emulator.
    pub authority: tls::Authority,
    pub certificate: tls::Certificate,
}

/// A receiver of its own.
pub struct Replica {
    pub process: Process,
    pub listen: SocketAddr,
    pub admin: String,
}

impl Deref for Bed {
    type Target = Room;

    fn deref(&self) -> &Room {
        &self.room
    }
}

impl Bed {
    /// The usual bed.
    pub async fn new(name: &str) -> Self {
        Self::with(name, BedOptions::default()).await
    }

    pub async fn with(name: &str, options: BedOptions) -> Self {
        Self::on(cluster().await, name, options).await
    }

    /// A bed on a certain cluster.
    pub async fn on(cluster: &'static Cluster, name: &str, options: BedOptions) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let client = cluster.admin().await;
        let asked = cluster.audit_log.as_deref().map(audit::Since::now);
        let namespace = cluster.make_namespace(&client, name).await;
        let dir = cluster.dir.join(format!("{}-{name}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(&dir).expect("the run's folder is writable");
        let authority = tls::Authority::new();
        let certificate = authority.issue(&dir, HOOKS_HOST);
        let front = Front::open().await;
        let emulator = Emulator::start(
            &dir,
            &EmulatorOptions {
                listen: "127.0.0.1:0",
                tls: None,
                api_key: &options.api_key,
                job_time: &options.job_time,
                resolve: (&format!("{HOOKS_HOST}:443"), options.way_in.unwrap_or(front.address())),
                webhook_ca: &certificate.ca,
                faults: options.faults.as_ref(),
                project: PROJECT,
                more_api_keys: &options.more_api_keys,
                jwt: options.jwt,
            },
        )
        .await;
        for account in [CONTROLLER, RECEIVER] {
            cluster.kubeconfig_of(&client, account, &dir.join(account)).await;
        }
        let operator = options.operator;
        let room = Room { cluster, client, namespace, emulator, dir, asked, why: logs_of_processes };
        let mut bed = Self {
            room,
            options,
            front,
            controller: None,
            receiver: None,
            controller_admin: String::new(),
            receiver_admin: String::new(),
            authority,
            certificate,
        };
        if operator {
            bed.start_receiver().await;
            bed.start_controller().await;
        }
        bed
    }

    // ---- the operator's processes ----

    /// Starts the receiver as its ServiceAccount and leads the front to it, once it is ready.
    pub async fn start_receiver(&mut self) {
        let mut process = self.launch_receiver("receiver");
        let hello = process.hello().await;
        let listen = listen_address(&hello);
        self.receiver_admin = admin_address(&hello);
        ready(&self.receiver_admin, &mut process).await;
        self.front.lead_to(Some(listen));
        self.receiver = Some(process);
    }

    /// A receiver that logs under `name`, as soon as its process is there; the front is not led to it.
    pub fn launch_receiver(&self, name: &str) -> Process {
        let mut command = self.receiver_command();
        if self.options.way_in.is_none() {
            command.arg("--tls-cert").arg(&self.certificate.cert);
            command.arg("--tls-key").arg(&self.certificate.key);
        }
        Process::start(name, &self.dir, command).expect("the receiver starts")
    }

    /// Another receiver beside the bed's own, which logs under `name` and speaks plain HTTP, as behind an Ingress; when it
    /// is ready. The front is not led to it.
    pub async fn spawn_replica(&self, name: &str) -> Replica {
        let mut process =
            Process::start(name, &self.dir, self.receiver_command()).expect("the receiver starts");
        let hello = process.hello().await;
        let (listen, admin) = (listen_address(&hello), admin_address(&hello));
        ready(&admin, &mut process).await;
        Replica { process, listen, admin }
    }

    fn receiver_command(&self) -> std::process::Command {
        let mut command = self.operator("receiver", RECEIVER);
        command.args(["--listen", "127.0.0.1:0", "--jwks-url", &self.emulator.jwks_url()]);
        command
    }

    /// SIGKILL; connections are refused from then on.
    pub fn kill_receiver(&mut self) {
        self.front.lead_to(None);
        self.receiver = None;
    }

    /// Starts the controller as its ServiceAccount; returns when it is ready.
    pub async fn start_controller(&mut self) {
        let (process, admin) = self.spawn_controller("controller", &[]).await;
        self.controller_admin = admin;
        self.controller = Some(process);
    }

    /// A controller that logs under `name`, with more variables in its environment; when it is ready, the process and
    /// the address of its admin port. Several run side by side: none of them is the leader.
    pub async fn spawn_controller(&self, name: &str, env: &[(&str, &str)]) -> (Process, String) {
        let mut process = self.launch_controller(name, env);
        let admin = admin_address(&process.hello().await);
        ready(&admin, &mut process).await;
        (process, admin)
    }

    /// The same, as soon as its process is there.
    pub fn launch_controller(&self, name: &str, env: &[(&str, &str)]) -> Process {
        let mut command = self.operator("controller", CONTROLLER);
        command
            .args(["--gemini-base-url", &self.emulator.url])
            .args(["--timing-divisor", &self.options.timing_divisor.to_string()])
            .args(&self.options.controller_args)
            .envs(env.iter().copied());
        Process::start(name, &self.dir, command).expect("the controller starts")
    }

    /// SIGKILL.
    pub fn kill_controller(&mut self) {
        self.controller = None;
    }

    /// SIGTERM; the exit status.
    pub async fn terminate_controller(&mut self, within: Duration) -> std::process::ExitStatus {
        self.controller.take().expect("the controller runs").terminate(within).await
    }

    fn operator(&self, subcommand: &str, account: &str) -> std::process::Command {
        let mut command = command(&tools::operator());
        command
            .arg(subcommand)
            .env("KUBECONFIG", self.dir.join(account))
            .args(["--operator-namespace", OPERATOR_NAMESPACE, "--watch-namespaces"])
            .arg([std::slice::from_ref(&self.namespace), &self.options.also_watch].concat().join(","))
            .args(["--admin-listen", "127.0.0.1:0"]);
        command
    }

    /// What both wrote so far, earlier starts included.
    pub fn logs(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        ["controller.log", "controller.out", "receiver.log", "receiver.out"].map(read).concat()
    }

    /// Metrics of both, as text.
    pub async fn metrics(&self) -> String {
        let mut all = String::new();
        for admin in [&self.controller_admin, &self.receiver_admin] {
            let answer = reqwest::get(format!("http://{admin}/metrics")).await.expect("metrics are served");
            all += &answer.text().await.expect("metrics are text");
        }
        all
    }

    /// The value of one series, named with its labels; `None` if nobody has it.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let all = self.metrics().await;
        let value = all.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map(|value| value.parse().expect("a metric is a number"))
    }
}

/// The objects of a namespace, wherever the operator runs.
impl Room {
    pub fn kubectl(&self) -> Kubectl<'_> {
        self.cluster.kubectl(&self.namespace)
    }

    /// `kubectl apply -f -` in this bed's namespace.
    pub async fn apply(&self, yaml: &str) {
        self.kubectl().apply(yaml).await.expect();
    }

    pub fn batches(&self) -> Api<GeminiBatch> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn webhooks(&self) -> Api<GeminiWebhook> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The Secret `gemini` with the API key, as every sample has it.
    pub async fn make_api_key(&self) {
        self.make_api_key_as("gemini", &self.emulator.api_key).await;
    }

    /// A Secret with this API key; replaces one of the same name.
    pub async fn make_api_key_as(&self, name: &str, key: &str) {
        self.make_secret(name, "apiKey", key).await;
    }

    /// A Secret with one entry.
    pub async fn make_secret(&self, name: &str, entry: &str, value: &str) {
        let secret: Secret = from_json(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {entry: value},
        }));
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = kube::api::PatchParams::apply("test").force();
        secrets.patch(name, &params, &kube::api::Patch::Apply(secret)).await.expect("a Secret can be made");
    }

    /// The GeminiWebhook `main`, registered and proved by a ping.
    pub async fn make_webhook(&self) -> GeminiWebhook {
        self.apply(&format!(
            "apiVersion: gemini-operator.io/v1alpha1\n\
             kind: GeminiWebhook\n\
             metadata: {{name: main}}\n\
             spec:\n  apiKeySecretRef: {{name: gemini}}\n  endpoint: {{url: 'https://{HOOKS_HOST}'}}\n"
        ))
        .await;
        self.wait_webhook("main", "Ready", |webhook| {
            let conditions = webhook.status.as_ref().map_or(&[][..], |s| &s.conditions);
            condition::is_true(conditions, condition::webhook_type::READY)
        })
        .await
    }

    /// Events about an object, as `(type, reason, note)`.
    pub async fn events(&self, name: &str) -> Vec<(String, String, String)> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let list = events.list(&ListParams::default().fields(&format!("involvedObject.name={name}"))).await;
        let text = |value: Option<String>| value.unwrap_or_default();
        let list = list.expect("events can be listed").items.into_iter();
        list.map(|event| (text(event.type_), text(event.reason), text(event.message))).collect()
    }

    /// Everything that the audit log has to say of this namespace until now: the log may be behind, but it keeps the
    /// order, so a request of our own is waited for.
    pub async fn audit_up_to_now(&self) -> Option<Vec<audit::Request>> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        self.asked.as_ref()?;
        let mark = format!("mark-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.kubectl().run(&["create", "configmap", &mark]).await.expect();
        let seen = poll(super::PATIENCE, async || {
            let all = self.audit().unwrap_or_default();
            if all.iter().any(|r| r.verb == "create" && r.name == mark) { Ok(all) } else { Err(all.len()) }
        });
        Some(seen.await.unwrap_or_else(|lines| panic!("{mark} is not in the audit log ({lines} requests)")))
    }

    /// Requests about this namespace in the audit log; `None` on a cluster that is not ours.
    pub fn audit(&self) -> Option<Vec<audit::Request>> {
        self.asked.as_ref().map(|log| audit::requests(log, &self.namespace))
    }

    /// Writes of one of the operator's ServiceAccounts in this namespace; `None` on a cluster that is not
    /// ours.
    pub fn writes_by(&self, account: &str) -> Option<Vec<audit::Request>> {
        let all = self.audit()?.into_iter();
        Some(all.filter(|request| request.user == account && request.is_write()).collect())
    }

    pub async fn ledger(&self) -> Ledger {
        self.emulator.ledger().await
    }

    /// The end of the log of a process that was started in this room's folder.
    pub fn tail_of(&self, process: &str) -> String {
        format!("--- log of the {process}\n{}\n", tail(&self.dir.join(format!("{process}.log")), 40))
    }
}

fn logs_of_processes(room: &Room) -> String {
    room.tail_of("controller") + &room.tail_of("receiver")
}

/// Where a receiver's greeting says that it listens.
pub fn listen_address(hello: &Value) -> SocketAddr {
    let address = hello["listen"].as_str().and_then(|address| address.parse().ok());
    address.expect("the receiver says where it listens")
}

fn admin_address(hello: &Value) -> String {
    hello["admin"].as_str().expect("the process says where its admin port is").to_owned()
}

/// Waits for `/readyz`.
async fn ready(admin: &str, process: &mut Process) {
    let url = format!("http://{admin}/readyz");
    let seen = poll(super::PATIENCE, async || match reqwest::get(&url).await {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(answer) => Err(answer.text().await.unwrap_or_default()),
        Err(error) => Err(error.to_string()),
    });
    if let Err(problem) = seen.await {
        panic!("{url} is not ready: {problem}\n{}", process.tail(40));
    }
}
