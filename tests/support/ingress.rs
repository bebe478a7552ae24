//! The way in from outside as a cluster has it: Traefik reads the chart's Ingress or HTTPRoute, its Service and the
//! certificate's Secret from the API server, ends TLS and passes deliveries on to the receiver.
//!
//! In the light bed only the EndpointSlices are made by hand: no pods run there, so nobody else fills the Services.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use reqwest::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use super::bed::{Bed, BedOptions, HOOKS_HOST, listen_address};
use super::cluster::{Cluster, RECEIVER, from_json};
use super::kubectl::run;
use super::process::{Process, command, restrict_environment};
use super::tls::Certificate;
use super::{PATIENCE, poll, tools};

/// Each way in has an address of its own (all of 127.0.0.0/8 is this machine), so the port can be the same: a
/// Gateway's listener has to name it before anybody listens.
const PORT: u16 = 8443;

/// Secret with the certificate.
pub const SECRET: &str = "hooks-tls";

/// Which object of the chart leads to the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Ingress,
    HttpRoute,
}

/// A namespace with a receiver, and what Traefik needs to read its routes.
pub struct Place<'a> {
    pub cluster: &'a Cluster,
    pub client: &'a Client,
    pub namespace: &'a str,
    /// For Traefik's own files.
    pub dir: &'a Path,
    pub certificate: &'a Certificate,
}

impl<'a> From<&'a Bed> for Place<'a> {
    fn from(bed: &'a Bed) -> Self {
        Self {
            cluster: bed.cluster,
            client: &bed.client,
            namespace: &bed.namespace,
            dir: &bed.dir,
            certificate: &bed.certificate,
        }
    }
}

impl Place<'_> {
    /// What a cluster's owner gives beside the release: the kinds, an account for Traefik, the certificate, and whom the
    /// route names. `port` is that of the way in.
    pub async fn prepare(&self, route: Route, port: u16) {
        if route == Route::HttpRoute {
            install_gateway_api(self.cluster, &tools::traefik()).await;
        }
        let given = [
            include_str!("ingress/account.yaml"),
            match route {
                Route::Ingress => include_str!("ingress/class.yaml"),
                Route::HttpRoute => include_str!("ingress/gateway.yaml"),
            },
        ];
        let kubectl = self.cluster.kubectl(self.namespace);
        for yaml in given {
            let yaml = yaml
                .replace("NAMESPACE", self.namespace)
                .replace("BED", &std::process::id().to_string())
                .replace("PORT", &port.to_string())
                .replace("HOST", HOOKS_HOST);
            kubectl.apply(&yaml).await.expect();
        }
        self.show(self.certificate).await;
    }

    /// The Secret holds this certificate from now on.
    async fn show(&self, certificate: &Certificate) {
        let read = |path: &Path| fs::read_to_string(path).expect("the certificate was just made");
        let secret: Secret = from_json(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": read(&certificate.cert), "tls.key": read(&certificate.key)},
        }));
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), self.namespace);
        let params = PatchParams::apply("test").force();
        secrets.patch(SECRET, &params, &Patch::Apply(secret)).await.expect("a Secret can be made");
    }
}

/// A running Traefik and what it reads; ends with it.
pub struct WayIn {
    pub address: SocketAddr,
    process: Process,
}

/// A bed whose deliveries come in by a route of the chart.
pub async fn bed_behind(route: Route, name: &str, options: BedOptions) -> (Bed, WayIn) {
    let address = address();
    let bed = Bed::with(name, BedOptions { way_in: Some(address), ..options }).await;
    let way = WayIn::open(&bed, route, address).await;
    (bed, way)
}

/// An address that no other way in has: one for each bed of this process and, as far as 16 bits go, of others.
fn address() -> SocketAddr {
    static NUMBER: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    // 127.0.0.x is everybody's.
    SocketAddr::from((Ipv4Addr::new(127, NUMBER.fetch_add(1, Ordering::Relaxed), high, low), PORT))
}

impl WayIn {
    async fn open(bed: &Bed, route: Route, address: SocketAddr) -> Self {
        let place = Place::from(bed);
        place.prepare(route, address.port()).await;
        bed.apply(&chart(bed, route).await).await;
        lead_to(bed, receiver_of(bed)).await;
        // What is not routed is all that keeps the outside from it.
        let admin = bed.receiver_admin.parse().expect("an admin port has an address");
        slice(bed, &format!("{RECEIVER}-metrics"), "metrics", admin).await;

        let mut way = Self::start(&place, route, address).await;
        way.wait_for(bed, StatusCode::METHOD_NOT_ALLOWED).await;
        way
    }

    /// Traefik for the routes of one kind in a place that is prepared. It has read them when a route answers.
    pub async fn start(place: &Place<'_>, route: Route, address: SocketAddr) -> Self {
        Self { address, process: start(place, route, address).await }
    }

    /// A client that knows where the receiver's host is, and trusts the bed's authority alone.
    pub fn client(&self, bed: &Bed) -> reqwest::Client {
        self.trusting(&bed.certificate)
    }

    fn trusting(&self, certificate: &Certificate) -> reqwest::Client {
        let ca = fs::read(&certificate.ca).expect("the certificate was just made");
        let ca = reqwest::Certificate::from_pem(&ca).expect("it is one");
        let builder = reqwest::Client::builder().no_proxy().resolve(HOOKS_HOST, self.address);
        builder.tls_certs_only([ca]).tls_info(true).build().expect("a client can be made")
    }

    /// The URL of a path of the receiver's host, seen from outside.
    pub fn url(&self, path: &str) -> String {
        format!("https://{HOOKS_HOST}:{}{path}", self.address.port())
    }

    /// Waits until a GET of the webhook's path is answered so: 405 by the receiver, 404 or 502 by Traefik.
    pub async fn wait_for(&mut self, bed: &Bed, status: StatusCode) {
        if let Err(problem) = self.answers(&bed.certificate, status).await {
            panic!("{problem}\n{}", bed.log_tails());
        }
    }

    /// The same; what is wrong, with Traefik's log, if it never is.
    pub async fn answers(&mut self, certificate: &Certificate, status: StatusCode) -> Result<(), String> {
        let url = self.url("/v1/h/nobody");
        let seen = poll(PATIENCE, async || {
            // A new one each time: an old connection has the old certificate.
            match self.trusting(certificate).get(&url).send().await {
                Ok(answer) if answer.status() == status => Ok(()),
                Ok(answer) => Err(answer.status().to_string()),
                Err(error) => Err(format!("{error:?}")),
            }
        });
        let log = || self.process.logs();
        seen.await.map_err(|last| format!("{url}: {last}, not {status}\n--- log of Traefik\n{}", log()))
    }

    /// Sends these very bytes over TLS and reads to the end of the connection.
    pub async fn raw(&self, bed: &Bed, request: &[u8]) -> Vec<u8> {
        let ca = fs::read(&bed.certificate.ca).expect("the certificate was just made");
        let mut roots = rustls::RootCertStore::empty();
        let ca =
            <rustls::pki_types::CertificateDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(&ca);
        roots.add(ca.expect("it is one")).expect("it is an authority");
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let name = HOOKS_HOST.try_into().expect("the host is a name");
        let stream = TcpStream::connect(self.address).await.expect("Traefik listens");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        exchange(connector.connect(name, stream).await.expect("the certificate is trusted"), request).await
    }
}

/// Sends bytes and reads to the end of the connection, which the request must have asked for.
pub async fn exchange(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    request: &[u8],
) -> Vec<u8> {
    // Who refuses early may close before all is written; the answer says whether that was right.
    let _ = stream.write_all(request).await;
    let _ = stream.flush().await;
    let mut answer = Vec::new();
    let _ =
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection ends");
    answer
}

/// Where the receiver of a bed listens.
pub fn receiver_of(bed: &Bed) -> SocketAddr {
    let hello = bed.receiver.as_ref().and_then(Process::greeting).expect("the receiver runs");
    listen_address(&hello)
}

/// The Service of the receiver has this one endpoint from now on.
pub async fn lead_to(bed: &Bed, endpoint: SocketAddr) {
    slice(bed, RECEIVER, "webhook", endpoint).await;
}

/// The Secret holds this certificate from now on.
pub async fn show(bed: &Bed, certificate: &Certificate) {
    Place::from(bed).show(certificate).await;
}

/// In place of the controller that follows pods.
async fn slice(bed: &Bed, service: &str, port: &str, endpoint: SocketAddr) {
    let name = format!("{service}-by-hand");
    let slice: EndpointSlice = from_json(json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        // As IPv4, the API server refuses loopback.
        "addressType": "FQDN",
        "ports": [{"name": port, "port": endpoint.port(), "protocol": "TCP"}],
        "endpoints": [{"addresses": [endpoint.ip().to_string()], "conditions": {"ready": true}}],
    }));
    let slices: Api<EndpointSlice> = Api::namespaced(bed.client.clone(), &bed.namespace);
    let params = PatchParams::apply("test").force();
    slices.patch(&name, &params, &Patch::Apply(slice)).await.expect("an EndpointSlice can be made");
}

/// helm's arguments for a route: the values that are documented for it, with the names of a place that is prepared.
pub fn values(route: Route, namespace: &str) -> Vec<String> {
    let (file, set) = match route {
        Route::Ingress => (
            "deploy/values-ingress.yaml",
            [
                format!("ingress.host={HOOKS_HOST}"),
                format!("ingress.className={namespace}"),
                format!("ingress.tls.secretName={SECRET}"),
            ]
            .to_vec(),
        ),
        Route::HttpRoute => (
            "deploy/values-httproute.yaml",
            [
                format!("httpRoute.host={HOOKS_HOST}"),
                "httpRoute.parentRefs[0].name=public".to_owned(),
                format!("httpRoute.parentRefs[0].namespace={namespace}"),
                "httpRoute.parentRefs[0].sectionName=https".to_owned(),
            ]
            .to_vec(),
        ),
    };
    let set = set.into_iter().flat_map(|value| ["--set".to_owned(), value]);
    ["--values".to_owned(), file.to_owned()].into_iter().chain(set).collect()
}

/// The route and the Services as the chart makes them.
async fn chart(bed: &Bed, route: Route) -> String {
    let namespace = bed.namespace.as_str();
    let template = match route {
        Route::Ingress => "ingress",
        Route::HttpRoute => "httproute",
    };
    let mut helm = Command::new(tools::helm());
    restrict_environment(&mut helm);
    helm.current_dir(tools::root())
        .envs(["HELM_CONFIG_HOME", "HELM_CACHE_HOME", "HELM_DATA_HOME"].map(|name| (name, &bed.dir)));
    helm.args(["template", "gemini-operator", "charts/gemini-operator", "--namespace", namespace]);
    helm.args(values(route, namespace));
    helm.args(
        [template, "services"]
            .iter()
            .flat_map(|name| ["--show-only".to_owned(), format!("templates/{name}.yaml")]),
    );
    run(helm, "").await.expect()
}

/// The kinds of the Gateway API, once for the cluster.
async fn install_gateway_api(cluster: &Cluster, traefik: &Path) {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    let install = async || {
        let crds = traefik.with_file_name("gateway-api");
        let kubectl = cluster.kubectl("");
        let apply = ["apply", "--server-side", "--field-manager=test", "-f", &crds.to_string_lossy()];
        kubectl.run(&apply).await.expect();
        let kinds = ["gatewayclasses", "gateways", "httproutes"];
        let kinds = kinds.map(|kind| format!("crd/{kind}.gateway.networking.k8s.io"));
        let wait = ["wait", "--for=condition=Established", "--timeout=60s"];
        let wait: Vec<&str> = wait.into_iter().chain(kinds.iter().map(String::as_str)).collect();
        kubectl.run(&wait).await.expect();
    };
    INSTALLED.get_or_init(install).await;
}

async fn start(place: &Place<'_>, route: Route, address: SocketAddr) -> Process {
    let namespace = place.namespace;
    let kubeconfig = place.dir.join("traefik.kubeconfig");
    place.cluster.kubeconfig_in(place.client, namespace, "traefik", &kubeconfig).await;
    let mut command = command(&tools::traefik());
    command
        .env("KUBECONFIG", kubeconfig)
        .args(["--global.checknewversion=false", "--global.sendanonymoususage=false"])
        .arg(format!("--entrypoints.websecure.address={address}"))
        .args(["--entrypoints.websecure.http.tls=true", "--providers.providersthrottleduration=200ms"]);
    match route {
        Route::Ingress => command
            .arg("--providers.kubernetesingress=true")
            .arg(format!("--providers.kubernetesingress.ingressclass={namespace}"))
            .arg(format!("--providers.kubernetesingress.namespaces={namespace}"))
            // Without it, a rule for /v1/h serves /v1/hx too.
            .arg("--providers.kubernetesingress.strictprefixmatching=true")
            .arg("--providers.kubernetesingress.allowemptyservices=true"),
        Route::HttpRoute => command
            .arg("--providers.kubernetesgateway=true")
            .arg(format!("--providers.kubernetesgateway.namespaces={namespace}")),
    };
    Process::start("traefik", place.dir, command).expect("Traefik starts")
}
