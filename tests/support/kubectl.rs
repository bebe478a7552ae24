//! kubectl, where what a person types and sees is the point.

use std::path::Path;
use std::process::{Command, Stdio};

use tokio::io::AsyncWriteExt;

use super::process::restrict_environment;
use super::tools;

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub ok: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// The output of a command that had to succeed.
    #[track_caller]
    pub fn expect(self) -> String {
        assert!(self.ok, "it failed: {}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// The error text of a command that had to fail.
    #[track_caller]
    pub fn expect_refused(self) -> String {
        assert!(!self.ok, "it succeeded, but should have been refused: {}", self.stdout);
        self.stderr
    }
}

/// kubectl with one kubeconfig and one namespace.
#[derive(Clone, Debug)]
pub struct Kubectl<'a> {
    pub kubeconfig: &'a Path,
    /// Empty: as the objects or the kubeconfig say.
    pub namespace: &'a str,
    /// Where it may keep what it learnt of the API; never in the home folder, ports come again.
    pub cache: &'a Path,
    /// Without the environment of this program.
    pub bare: bool,
}

impl Kubectl<'_> {
    /// A command line, not started; for those who want to read its output while it runs.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(tools::kubectl());
        if self.bare {
            restrict_environment(&mut command);
        }
        command.env("KUBECACHEDIR", self.cache).arg("--kubeconfig").arg(self.kubeconfig);
        if !self.namespace.is_empty() {
            command.args(["--namespace", self.namespace]);
        }
        command.args(args);
        command
    }

    pub async fn run(&self, args: &[&str]) -> Said {
        self.run_with_input(args, "").await
    }

    /// `kubectl apply -f -`, as a person would, with strict validation (kubectl's default).
    pub async fn apply(&self, yaml: &str) -> Said {
        self.run_with_input(&["apply", "--validate=strict", "-f", "-"], yaml).await
    }

    pub async fn run_with_input(&self, args: &[&str], input: &str) -> Said {
        run(self.command(args), input).await
    }
}

/// Runs a command with this input to its end.
pub async fn run(command: Command, input: &str) -> Said {
    let mut child = tokio::process::Command::from(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the command runs");
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    let write = async {
        // A command that does not read its input closes the pipe; its status says whether that was wrong.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
    };
    let ((), output) = tokio::join!(write, child.wait_with_output());
    let output = output.expect("the command ends");
    Said {
        ok: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
