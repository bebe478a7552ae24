//! Where the programs of the bed are: our own are built by cargo, the others are given by the scripts in
//! `testenv/`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The operator's binary, of this very build.
pub fn operator() -> PathBuf {
    match option_env!("CARGO_BIN_EXE_gemini-operator") {
        Some(path) => path.into(),
        None => built("gemini-operator"),
    }
}

/// The emulator's binary: `GEMINI_EMULATOR_BIN`, or as cargo builds it.
pub fn emulator() -> PathBuf {
    std::env::var_os("GEMINI_EMULATOR_BIN").map_or_else(|| built("gemini-emulator"), PathBuf::from)
}

/// The binary of the control plane; `testenv/controlplane.sh` builds it where it is not in the cache.
pub fn controlplane() -> PathBuf {
    script("controlplane.sh")
}

/// kubectl of the control plane's version; on the user's own cluster `KUBECTL` may name another.
pub fn kubectl() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| std::env::var_os("KUBECTL").map_or_else(|| script("kubectl.sh"), PathBuf::from))
}

/// helm: `HELM`, or as `testenv/helm.sh` fetches it.
pub fn helm() -> PathBuf {
    std::env::var_os("HELM").map_or_else(|| script("helm.sh"), PathBuf::from)
}

/// Traefik, the ingress controller: `TRAEFIK`, or as `testenv/ingress.sh` builds it where it is not in the cache.
pub fn traefik() -> PathBuf {
    std::env::var_os("TRAEFIK").map_or_else(|| script("ingress.sh"), PathBuf::from)
}

/// A script that prints the path of a program; what it has to say meanwhile goes to our stderr.
fn script(name: &str) -> PathBuf {
    let path = root().join("testenv").join(name);
    let output = Command::new(&path)
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(output.status.success(), "{} ended with {}", path.display(), output.status);
    let program = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    // Somebody may have tidied the cache by hand.
    let folder = program.parent().unwrap_or(&program).display();
    assert!(program.exists(), "{} is not there: remove the folder {folder} and try again", program.display());
    program
}

/// A binary of this workspace, built (once for this process) in the profile of the running program.
///
/// Cargo itself only promises the binaries of the tested package; that of another one beside it may be from
/// last week.
fn built(package: &str) -> PathBuf {
    static BUILT: OnceLock<HashMap<String, PathBuf>> = OnceLock::new();
    let paths = BUILT.get_or_init(build);
    paths.get(package).unwrap_or_else(|| panic!("cargo build made no {package}")).clone()
}

fn build() -> HashMap<String, PathBuf> {
    // …/target/PROFILE/{deps,examples}/this-program
    let this = std::env::current_exe().expect("this program has a path");
    let profile_dir = this.ancestors().nth(2).expect("this program is in a target folder");
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // What `cargo run` and `cargo test` tell us about this package is no setting of ours: build scripts (ring's) look
    // at it, and with them half of the dependencies would be built anew, here and by the next cargo outside.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|told| name.starts_with(told)) {
            command.env_remove(&*name);
        }
    }
    let output = command
        .current_dir(root())
        .args([
            "build",
            "--quiet",
            "--locked",
            "--workspace",
            "--bins",
            "--message-format=json-render-diagnostics",
        ])
        // Else this build would put another operator where the tests' own is.
        .args(if cfg!(feature = "failpoints") { &["--features", "failpoints"][..] } else { &[] })
        .args(["--profile", profile, "--target-dir"])
        .arg(profile_dir.parent().expect("a target folder holds the profile's folder"))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo build ended with {}", output.status);
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| {
            let path = message["executable"].as_str()?;
            Some((message["target"]["name"].as_str()?.to_owned(), path.into()))
        })
        .collect()
}
