//! The command line.

pub mod signature;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use kube::CustomResourceExt;

use crate::api::{GeminiBatch, GeminiWebhook};
use crate::runtime::telemetry;
use crate::{controller, gemini, receiver, yaml};

/// Runs Gemini Batch API jobs from Kubernetes without polling and without paying twice.
#[derive(Debug, Parser)]
#[command(name = "gemini-operator", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Reconciles GeminiBatches and GeminiWebhooks.
    Controller(ControllerArgs),
    /// Receives Gemini's webhook deliveries.
    Receiver(ReceiverArgs),
    /// Prints the CustomResourceDefinitions.
    Crd {
        /// Print only this kind.
        kind: Option<CrdKind>,
    },
    /// Tells why a delivery is refused.
    #[command(subcommand)]
    Signature(signature::SignatureCommand),
}

/// A kind of ours.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum CrdKind {
    #[value(name = "geminibatches")]
    Batches,
    #[value(name = "geminiwebhooks")]
    Webhooks,
}

/// What both processes need.
#[derive(Debug, Args)]
pub struct CommonArgs {
    /// Namespace of the operator: its Secrets are there, and GeminiWebhooks there serve all namespaces.
    #[arg(long, value_name = "NAMESPACE", default_value = "gemini-operator-system")]
    operator_namespace: String,
    /// Watch only these namespaces (comma separated). Default: all.
    #[arg(long, value_name = "NAMESPACES", value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// Address of metrics and probes.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8080")]
    admin_listen: SocketAddr,
    /// How log lines look.
    #[arg(long, value_enum, default_value = "json")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Json,
    Text,
}

#[derive(Debug, Args)]
pub struct ControllerArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Base URL of the Gemini API.
    #[arg(long, value_name = "URL", default_value = "https://generativelanguage.googleapis.com", value_parser = base_url)]
    gemini_base_url: String,
    /// Version segment of the Gemini API.
    #[arg(long, value_name = "VERSION", default_value = "v1beta", value_parser = api_version)]
    gemini_api_version: String,
    /// PEM file with further certificate authorities for the Gemini API.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Divides every window of the protocol. For tests against the emulator; refused for Google's own API.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    timing_divisor: u32,
}

#[derive(Debug, Args)]
pub struct ReceiverArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Address for deliveries.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// PEM file with the certificate chain; read again when it changes. Default: plain HTTP behind an Ingress.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file with the certificate's key.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Where the public keys are that Google signs the deliveries of Dynamic webhooks with. Asked only while there are
    /// such deliveries.
    #[arg(long, value_name = "URL", default_value = receiver::jwks_fetch::GOOGLES, value_parser = jwks_url)]
    jwks_url: String,
    /// PEM file with further certificate authorities for --jwks-url.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl CommonArgs {
    pub fn log_format(&self) -> telemetry::LogFormat {
        match self.log_format {
            LogFormat::Json => telemetry::LogFormat::Json,
            LogFormat::Text => telemetry::LogFormat::Text,
        }
    }
}

impl ControllerArgs {
    pub fn common(&self) -> &CommonArgs {
        &self.common
    }

    pub fn settings(self) -> controller::Settings {
        controller::Settings {
            operator_namespace: self.common.operator_namespace,
            watch_namespaces: self.common.watch_namespaces,
            admin_listen: self.common.admin_listen,
            gemini_base_url: self.gemini_base_url,
            gemini_api_version: self.gemini_api_version,
            ca_file: self.ca_file,
            timing_divisor: self.timing_divisor,
        }
    }
}

impl ReceiverArgs {
    pub fn common(&self) -> &CommonArgs {
        &self.common
    }

    pub fn settings(self) -> receiver::Settings {
        receiver::Settings {
            listen: self.listen,
            admin_listen: self.common.admin_listen,
            operator_namespace: self.common.operator_namespace,
            watch_namespaces: self.common.watch_namespaces,
            tls: self.tls_cert.zip(self.tls_key),
            jwks_url: self.jwks_url,
            ca_file: self.ca_file,
        }
    }
}

fn base_url(text: &str) -> Result<String, String> {
    gemini::check_base_url(text).map(|()| text.to_owned())
}

fn jwks_url(text: &str) -> Result<String, String> {
    receiver::jwks_fetch::check_url(text).map(|()| text.to_owned())
}

fn api_version(text: &str) -> Result<String, String> {
    gemini::check_version(text).map(|()| text.to_owned())
}

/// What clap says in a paragraph, in one line and without the usage: a log shows single lines.
pub fn one_line(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let cli = Cli::command();
        let names: Vec<_> = cli.get_subcommands().map(clap::Command::get_name).collect();
        return format!("what to do? {}", names.join(", "));
    }
    let text = error.to_string();
    let said = text.split("\nUsage:").next().unwrap_or_default();
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("For more"));
    lines.collect::<Vec<_>>().join("; ").trim_start_matches("error: ").to_owned()
}

/// One CRD or both, as YAML.
pub fn crds(kind: Option<CrdKind>) -> Result<String, String> {
    let batches = || yaml::document(&GeminiBatch::crd());
    let webhooks = || yaml::document(&GeminiWebhook::crd());
    match kind {
        Some(CrdKind::Batches) => batches(),
        Some(CrdKind::Webhooks) => webhooks(),
        None => Ok(batches()? + &webhooks()?),
    }
}
