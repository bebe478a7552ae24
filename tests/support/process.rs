//! Child processes that end with their owner.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use super::{PATIENCE, poll};

/// Variables that a child may see. Everything else stays outside: no `KUBECONFIG`, no proxy, no credentials.
const PASSED_ON: [&str; 8] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "RUST_BACKTRACE",
    "RUST_LOG",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// A running child; dropping it kills it and waits until it is gone.
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// A command for `program` that dies with this process, even if this one is killed.
///
/// `setpriv` sets the parent-death signal and then becomes the program, so the process id is the program's.
/// The signal is bound to the thread that starts the child: start children from the test's own task, never
/// from `spawn_blocking`. Without `setpriv` only an orderly end or a panic takes the child along.
pub fn command(program: &Path) -> Command {
    static SETPRIV: OnceLock<bool> = OnceLock::new();
    let available = *SETPRIV.get_or_init(|| {
        let probe =
            Command::new("setpriv").args(["--pdeathsig", "KILL", "true"]).stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success())
    });
    let mut command = if available {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    restrict_environment(&mut command);
    command
}

/// Leaves a command only the variables that it may see.
pub fn restrict_environment(command: &mut Command) {
    command.env_clear();
    for name in PASSED_ON {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
}

impl Process {
    /// Starts `command`, its output in `dir/name.out` (new) and `dir/name.log` (appended to).
    pub fn start(name: &str, dir: &Path, mut command: Command) -> io::Result<Self> {
        // Ctrl-C at a terminal is for us, who end our children when nobody needs them any more.
        command.process_group(0);
        let (stdout, stderr) = (dir.join(format!("{name}.out")), dir.join(format!("{name}.log")));
        let log = File::options().create(true).append(true).open(&stderr)?;
        let child = command.stdin(Stdio::null()).stdout(File::create(&stdout)?).stderr(log).spawn().map_err(
            |error| {
                io::Error::new(error.kind(), format!("{name}: {}: {error}", command.get_program().display()))
            },
        )?;
        Ok(Self { name: name.to_owned(), child, stdout, stderr })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The JSON line that the process prints when it listens.
    pub async fn hello(&mut self) -> Value {
        let line = poll(PATIENCE, async || match fs::read_to_string(&self.stdout) {
            Ok(text) if text.contains('\n') => Ok(Ok(text)),
            _ => match self.child.try_wait() {
                Ok(Some(status)) => Ok(Err(format!("ended with {status}"))),
                _ => Err(()),
            },
        })
        .await
        .unwrap_or_else(|()| Err(format!("printed nothing in {PATIENCE:?}")))
        .unwrap_or_else(|problem| panic!("{} {problem}; its log ends with:\n{}", self.name, self.tail(40)));
        let first = line.lines().next().unwrap_or_default();
        serde_json::from_str(first).unwrap_or_else(|error| panic!("{}: {first:?}: {error}", self.name))
    }

    /// The same line, if it is there by now.
    pub fn greeting(&self) -> Option<Value> {
        let text = fs::read_to_string(&self.stdout).ok()?;
        let (line, _) = text.split_once('\n')?;
        serde_json::from_str(line).ok()
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(&mut self) {
        // It may be gone already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal by its name without `SIG` (`TERM`, `STOP`, `CONT`).
    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let status = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", signal, &pid]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill -s {signal} {pid}");
    }

    /// SIGTERM, then the exit status; panics if it takes longer than `within`.
    pub async fn terminate(&mut self, within: Duration) -> std::process::ExitStatus {
        self.signal("TERM");
        poll(within, async || self.ended().ok_or(())).await.unwrap_or_else(|()| {
            panic!(
                "{} did not end within {within:?} of SIGTERM; its log ends with:\n{}",
                self.name,
                self.tail(40)
            )
        })
    }

    /// Everything that it wrote to stdout and stderr so far, earlier starts of the same name included.
    pub fn logs(&self) -> String {
        [&self.stdout, &self.stderr].map(|path| fs::read_to_string(path).unwrap_or_default()).concat()
    }

    /// The last lines of its log.
    pub fn tail(&self, lines: usize) -> String {
        tail(&self.stderr, lines)
    }
}

/// The last lines of a file; empty if there is none.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
