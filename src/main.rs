//! Picks the process that this binary is, and ends it with one line on stderr if it fails.

use std::future::Future;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use gemini_operator::cli::signature::{SignatureCommand, VerifyArgs};
use gemini_operator::cli::{Cli, Command, crds, one_line};
use gemini_operator::runtime::kube_client::{Retries, connect};
use gemini_operator::runtime::shutdown::Shutdown;
use gemini_operator::runtime::{crypto, telemetry};
use gemini_operator::{controller, receiver};
use tokio_util::sync::CancellationToken;

/// Exit status of a wrong command line, as clap's.
const USAGE: u8 = 2;
const FAILED: u8 = 1;
const USER_AGENT: &str = concat!("gemini-operator/", env!("CARGO_PKG_VERSION"));

fn main() -> ExitCode {
    crypto::install();
    #[cfg(feature = "failpoints")]
    if let Err(message) = controller::points::install() {
        return fail(&message, USAGE);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // A wrong flag; asking for help or for the version is no mistake and clap answers it.
        Err(error) if error.use_stderr() => {
            return fail(&format!("{}; --help shows what there is", one_line(&error)), USAGE);
        }
        Err(answer) => answer.exit(),
    };
    match run(cli) {
        Ok(status) => status,
        Err(message) => fail(&message, FAILED),
    }
}

fn fail(message: &str, status: u8) -> ExitCode {
    // Nowhere to say it if stderr is gone.
    let _ = writeln!(std::io::stderr(), "gemini-operator: {message}");
    ExitCode::from(status)
}

fn run(cli: Cli) -> Result<ExitCode, String> {
    let done = match cli.command {
        Command::Signature(SignatureCommand::Verify(args)) => return Ok(verify(&args)),
        Command::Crd { kind } => {
            std::io::stdout().write_all(crds(kind)?.as_bytes()).map_err(|e| e.to_string())
        }
        Command::Controller(args) => process(args.common().log_format(), |stop| async {
            let settings = args.settings();
            let gemini = controller::gemini(&settings).map_err(chain)?;
            let client = connect(USER_AGENT, Retries::Default).await.map_err(chain)?;
            let writer = connect(USER_AGENT, Retries::Never).await.map_err(chain)?;
            controller::run(settings, gemini, client, writer, stop).await.map_err(chain)
        }),
        Command::Receiver(args) => process(args.common().log_format(), |stop| async {
            let client = connect(USER_AGENT, Retries::Default).await.map_err(chain)?;
            receiver::run(args.settings(), client, stop).await.map_err(chain)
        }),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// One line with the verdict, which is also the exit status: 1 is a refusal here, so what cannot be judged is 2.
fn verify(args: &VerifyArgs) -> ExitCode {
    let judgement = match args.judge() {
        Ok(judgement) => judgement,
        Err(message) => return fail(&message, USAGE),
    };
    if let Err(error) = writeln!(std::io::stdout(), "{judgement}") {
        return fail(&error.to_string(), USAGE);
    }
    match (judgement.rejected, judgement.note) {
        (None, _) => ExitCode::SUCCESS,
        (Some(_), None) => ExitCode::from(FAILED),
        (Some(_), Some(note)) => fail(&note, FAILED),
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

/// An error with its causes, in one line. Some errors repeat their cause in their own words.
fn chain(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}
