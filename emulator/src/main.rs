//! The command line of gemini-emulator.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use gemini_emulator::clock::parse_duration;
use gemini_emulator::deliveries::Sender;
use gemini_emulator::faults::Plan;
use gemini_emulator::jwks::{Keys, Signature, rsa_key};
use gemini_emulator::sender::Resolve;
use gemini_emulator::state::{App, Settings, default_project};
use gemini_emulator::{jobs, server};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio_rustls::TlsAcceptor;

#[derive(Parser)]
#[command(
    name = "gemini-emulator",
    version,
    about = "A stateful stand-in for the Gemini Batch, Files, Models and Webhooks API"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API until the process is told to end.
    Serve(Serve),
}

#[derive(clap::Args)]
struct Serve {
    /// Address to listen on; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:8089")]
    listen: SocketAddr,
    /// Accepted API key, with the project it belongs to; may be given several times. None: every key is accepted and
    /// is its own project.
    #[arg(long = "api-key", value_name = "KEY[=PROJECT]")]
    api_keys: Vec<String>,
    /// PEM certificate chain; with it, HTTPS is served.
    #[arg(long, requires = "tls_key", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// PEM private key of the certificate.
    #[arg(long, requires = "tls_cert", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// PEM root that deliveries trust besides the system's.
    #[arg(long, value_name = "FILE")]
    webhook_ca: Option<PathBuf>,
    /// Deliveries to HOST:PORT connect to ADDR (as curl's --resolve).
    #[arg(long = "resolve", value_name = "HOST:PORT=ADDR")]
    resolves: Vec<Resolve>,
    /// Register webhooks with plain http too.
    #[arg(long)]
    allow_http_webhooks: bool,
    /// Fault plan in JSON.
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// Seed of identifiers and of chance in fault plans; a random one is taken and printed otherwise.
    #[arg(long)]
    seed: Option<u64>,
    /// From a job's creation to its end (5s, 250ms, 2m, 0).
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    job_time: Duration,
    /// What deliveries to a job's own addresses are signed with.
    #[arg(long, value_enum, default_value_t = Signature::V1a)]
    dynamic_signature: Signature,
    /// PEM RSA private key for JWTs; may be given several times: the first signs, each of the others is there for one
    /// rotation.
    #[arg(long = "jwt-key", value_name = "FILE", required_if_eq("dynamic_signature", "jwt"))]
    jwt_keys: Vec<PathBuf>,
    /// Divides the delays between the attempts of a delivery.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    retry_scale: u32,
}

fn main() -> ExitCode {
    // The first thing of all: rustls and reqwest take this provider.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return fail("the TLS provider is already set");
    }
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            return fail(&format!("{}; --help shows what there is", one_line(&error)));
        }
        // Help and version are no mistakes.
        Err(answer) => answer.exit(),
    };
    let Command::Serve(options) = cli.command;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("runtime: {error}")),
    };
    let ended = runtime.block_on(serve(options));
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => fail(&message),
    }
}

/// Says what is wrong with the command line or its files; usage errors exit with 2, as clap's do.
fn fail(message: &str) -> ExitCode {
    eprintln!("gemini-emulator: {message}");
    ExitCode::from(2)
}

/// What clap says in a paragraph, in one line and without the usage.
fn one_line(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "what to do? serve".into();
    }
    let text = error.to_string();
    let said = text.split("\nUsage:").next().unwrap_or_default();
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("For more"));
    lines.collect::<Vec<_>>().join("; ").trim_start_matches("error: ").to_owned()
}

async fn serve(options: Serve) -> Result<(), String> {
    let plan = match &options.faults {
        None => Plan::default(),
        Some(path) => Plan::parse(&read("--faults", path)?)
            .map_err(|error| format!("--faults {}: {error}", path.display()))?,
    };
    let ca = options.webhook_ca.as_deref().map(|path| read("--webhook-ca", path)).transpose()?;
    let sender = Sender::new(ca.as_deref(), options.resolves)?;
    let tls = match (&options.tls_cert, &options.tls_key) {
        (Some(cert), Some(key)) => Some(acceptor(cert, key)?),
        _ => None,
    };
    let seed = match options.seed {
        Some(seed) => seed,
        None => getrandom::u64().map_err(|error| format!("no randomness: {error}"))? >> 12,
    };
    let settings = Settings {
        api_keys: keys(&options.api_keys)?,
        job_time: options.job_time,
        retry_scale: options.retry_scale,
        seed,
        allow_http_webhooks: options.allow_http_webhooks,
        tls: tls.is_some(),
    };
    let scheme = if settings.tls { "https" } else { "http" };
    let (listener, address) =
        server::bind(options.listen).await.map_err(|error| cannot_listen(options.listen, &error))?;
    let rsa = options.jwt_keys.iter().map(|path| {
        let key = private_key("--jwt-key", path)?;
        rsa_key(key.secret_der()).map_err(|error| format!("--jwt-key {}: {error}", path.display()))
    });
    let keys = Keys::new(options.dynamic_signature, rsa.collect::<Result<_, _>>()?)?;
    keys.check(&plan)?;
    let app = Arc::new(App::new(settings, sender, keys, plan));
    tokio::spawn(jobs::scheduler(Arc::clone(&app)));
    let ready = json!({"address": address.to_string(), "url": format!("{scheme}://{address}"), "seed": seed});
    let mut out = std::io::stdout();
    writeln!(out, "{ready}").and_then(|()| out.flush()).map_err(|error| format!("stdout: {error}"))?;
    tokio::select! {
        never = server::serve(app, listener, tls) => match never {},
        ended = end() => ended,
    }
}

/// SIGINT or SIGTERM.
async fn end() -> Result<(), String> {
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|error| format!("signal: {error}"))?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result.map_err(|error| format!("signal: {error}")),
        _ = term.recv() => Ok(()),
    }
}

fn keys(texts: &[String]) -> Result<HashMap<String, String>, String> {
    let mut keys = HashMap::new();
    for text in texts {
        let (key, project) = match text.split_once('=') {
            Some((key, project)) => (key, project.to_owned()),
            None => (text.as_str(), default_project(text)),
        };
        if key.is_empty() || project.is_empty() {
            return Err("--api-key: KEY or KEY=PROJECT is needed".into());
        }
        keys.insert(key.to_owned(), project);
    }
    Ok(keys)
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> String {
    format!("--listen {address}: cannot listen there, choose another address (port 0: a free one): {error}")
}

fn read(flag: &str, path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{flag} {}: {error}", path.display()))
}

fn private_key(flag: &str, path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| format!("{flag} {}: {error}", path.display()))
}

fn acceptor(cert: &Path, key: &Path) -> Result<TlsAcceptor, String> {
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| format!("--tls-cert {}: {error}", cert.display()))?;
    if chain.is_empty() {
        return Err(format!("--tls-cert {}: the file holds no certificate in PEM form", cert.display()));
    }
    let private = private_key("--tls-key", key)?;
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| format!("--tls-cert {} and --tls-key: {error}", cert.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
