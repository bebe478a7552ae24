//! Picks the process that this binary is, and ends it with one line on stderr if it fails.

use std::future::Future;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use gemini_operator::cli::{Cli, Command, crds};
use gemini_operator::runtime::kube_client::{Retries, connect};
use gemini_operator::runtime::shutdown::Shutdown;
use gemini_operator::runtime::{crypto, telemetry};
use gemini_operator::{controller, receiver};
use tokio_util::sync::CancellationToken;

const USER_AGENT: &str = concat!("gemini-operator/", env!("CARGO_PKG_VERSION"));

fn main() -> ExitCode {
    crypto::install();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // Nowhere to say it if stderr is gone.
            let _ = writeln!(std::io::stderr(), "gemini-operator: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), String> {
    match cli.command {
        Command::Crd { kind } => {
            std::io::stdout().write_all(crds(kind)?.as_bytes()).map_err(|e| e.to_string())
        }
        Command::Controller(args) => process(args.common().log_format(), |stop| async {
            let client = connect(USER_AGENT, Retries::Default).await.map_err(chain)?;
            let writer = connect(USER_AGENT, Retries::Never).await.map_err(chain)?;
            controller::run(args.settings(), client, writer, stop).await.map_err(chain)
        }),
        Command::Receiver(args) => process(args.common().log_format(), |stop| async {
            let client = connect(USER_AGENT, Retries::Default).await.map_err(chain)?;
            receiver::run(args.settings(), client, stop).await.map_err(chain)
        }),
    }
}

/// Runs a process until it ends by itself, is asked to stop and has drained, or is asked twice.
fn process<F>(format: telemetry::LogFormat, work: impl FnOnce(CancellationToken) -> F) -> Result<(), String>
where
    F: Future<Output = Result<(), String>>,
{
    telemetry::init(format).map_err(chain)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(chain)?;
    runtime.block_on(async {
        let shutdown = Shutdown::install().map_err(chain)?;
        let work = work(shutdown.token());
        tokio::select! {
            result = work => result,
            () = shutdown.second_signal() => Err("asked twice to stop".into()),
        }
    })
}

/// An error with its causes, in one line.
fn chain(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
