//! Command lines that cannot work: one line on stderr that names the flag and the way out, and no success.

// Helpers of tests are tests: they end a test by a panic that says why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files for one test.
struct Files {
    dir: PathBuf,
}

impl Files {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self { dir }
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Runs the operator in a world without a cluster; its exit status and its one line.
fn refused(arguments: &[&str], kubeconfig: &Path) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_gemini-operator"))
        .args(arguments)
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("KUBECONFIG", kubeconfig)
        // The person who runs this may have it set; a panic would then be longer, and must not be there at all.
        .env("RUST_BACKTRACE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "one line for {arguments:?}: {said}");
    assert!(said.starts_with("gemini-operator: "), "{said}");
    (output.status.code().unwrap(), said)
}

/// A cluster at a port where nobody listens.
fn nowhere(files: &Files) -> PathBuf {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "nowhere",
        "clusters": [{"name": "nowhere", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
        "users": [{"name": "nobody", "user": {"token": "none"}}],
        "contexts": [{"name": "nowhere", "context": {"cluster": "nowhere", "user": "nobody"}}],
    });
    files.write("kubeconfig", &config.to_string()).into()
}

#[test]
fn wrong_flags_are_usage_errors() {
    let files = Files::new("usage");
    for (arguments, words) in [
        (&["controller", "--gemini-baseurl", "https://h"][..], &["'--gemini-base-url'"][..]),
        (&["controller", "--gemini-base-url", "nonsense"], &["--gemini-base-url", "https://HOST"]),
        (&["controller", "--gemini-base-url", "http://example.com"], &["--gemini-base-url", "is https"]),
        (&["controller", "--gemini-base-url", "https://h/v1beta"], &["--gemini-base-url", "nothing else"]),
        (&["controller", "--gemini-api-version", "v1/beta"], &["--gemini-api-version", "v1beta"]),
        (&["controller", "--timing-divisor", "0"], &["--timing-divisor"]),
        (&["controller", "--admin-listen", "8080"], &["--admin-listen"]),
        (&["receiver", "--tls-cert", "tls.crt"], &["--tls-key"]),
        (&["receiver", "--jwks-url", "http://example.com/keys"], &["--jwks-url", "https", "loopback"]),
        (&["receiver", "--jwks-url", "keys.json"], &["--jwks-url", "https://generativelanguage"]),
        (&["reciever"], &["receiver"]),
        (&[], &["controller, receiver, crd"]),
    ] {
        let (status, said) = refused(arguments, &nowhere(&files));
        assert_eq!(status, 2, "{arguments:?}");
        assert!(words.iter().all(|word| said.contains(word)), "{words:?} in: {said}");
        assert!(said.contains("--help"), "{said}");
    }
}

#[test]
fn files_and_addresses_that_cannot_be_used_are_named() {
    let files = Files::new("files");
    let kubeconfig = nowhere(&files);
    let (empty, none) = (files.write("empty", ""), "/nonexistent/file");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (arguments, words) in [
        (&["controller", "--ca-file", none][..], &["--ca-file", none][..]),
        (&["controller", "--ca-file", &empty], &["--ca-file", "no certificate"]),
        (&["controller", "--admin-listen", &address], &["--admin-listen", &address, "another address"]),
        (&["receiver", "--tls-cert", none, "--tls-key", none], &["--tls-cert", "--tls-key", none]),
        (&["receiver", "--tls-cert", &empty, "--tls-key", &empty], &["--tls-cert", "no certificate"]),
        (&["receiver", "--ca-file", none], &["--ca-file", none]),
        (&["receiver", "--ca-file", &empty], &["--ca-file", "no certificate"]),
        (&["receiver", "--listen", &address], &["--listen", &address, "another address"]),
        (
            &["receiver", "--listen", "127.0.0.1:0", "--admin-listen", &address],
            &["--admin-listen", &address, "another address"],
        ),
    ] {
        let (status, said) = refused(arguments, &kubeconfig);
        assert_eq!(status, 1, "{arguments:?}");
        assert!(words.iter().all(|word| said.contains(word)), "{words:?} in: {said}");
    }
}

/// Divided windows would pay twice there, however the host is written.
#[test]
fn time_is_not_divided_for_google() {
    let files = Files::new("divisor");
    let kubeconfig = nowhere(&files);
    for url in [
        "https://generativelanguage.googleapis.com",
        "https://generativelanguage.GoogleAPIs.com",
        "https://generativelanguage.googleapis.com.:443",
    ] {
        let arguments = ["controller", "--timing-divisor", "60", "--gemini-base-url", url];
        let (status, said) = refused(&arguments, &kubeconfig);
        assert_eq!(status, 1);
        assert!(said.contains("--timing-divisor 60") && said.contains("--gemini-base-url"), "{said}");
    }
    // A stand-in's name may hold the word: refused for the cluster that is not there, not for the divisor.
    let stand_in = "https://googleapis.com.example.org";
    let arguments = [
        "controller",
        "--admin-listen",
        "127.0.0.1:0",
        "--timing-divisor",
        "60",
        "--gemini-base-url",
        stand_in,
    ];
    assert!(!refused(&arguments, &kubeconfig).1.contains("--timing-divisor"));
}

#[test]
fn a_cluster_that_is_not_there_is_named() {
    let files = Files::new("cluster");
    for process in ["controller", "receiver"] {
        let (status, said) = refused(&[process], Path::new("/nonexistent/kubeconfig"));
        assert_eq!(status, 1);
        assert!(said.contains("KUBECONFIG"), "{said}");
    }
    let kubeconfig = nowhere(&files);
    let (status, said) = refused(&["controller", "--admin-listen", "127.0.0.1:0"], &kubeconfig);
    assert_eq!(status, 1);
    assert!(said.contains("127.0.0.1") && said.contains("KUBECONFIG"), "{said}");
}

/// Crash points and the switches that break the protocol are for tests: without their feature, nothing of them is in the
/// program. With it they are, so this test knows what it looks for.
#[test]
fn crash_points_are_in_the_program_only_with_their_feature() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_gemini-operator")).unwrap();
    let sources = [include_str!("../src/batch/points.rs"), include_str!("../src/webhook/points.rs")];
    let quoted = sources.iter().flat_map(|source| source.split('"').skip(1).step_by(2));
    let names: Vec<&str> = quoted.filter(|text| text.contains('-')).collect();
    for known in ["c0-identity", "d1-release", "w0-path", "x2-release"] {
        assert!(names.contains(&known), "{known}: {names:?}");
    }
    for name in
        names.into_iter().chain(["GEMINI_OPERATOR_FAIL", "GEMINI_OPERATOR_BREAK", "failpoint reached"])
    {
        let found = memchr::memmem::find(&program, name.as_bytes()).is_some();
        assert_eq!(found, cfg!(feature = "failpoints"), "{name}");
    }
}

/// A fault that never fires proves nothing, so a misspelt one is told at once.
#[cfg(feature = "failpoints")]
#[test]
fn a_crash_point_that_does_not_exist_ends_the_process() {
    for (variable, value) in [("GEMINI_OPERATOR_FAIL", "c99.before=kill"), ("GEMINI_OPERATOR_BREAK", "law")] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_gemini-operator")).arg("crd").env(variable, value).output();
        let output = output.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.starts_with(&format!("gemini-operator: {variable}: ")), "{said}");
        assert!(said.contains("no such") && said.lines().count() == 1, "{said}");
    }
}
