//! Generated files are committed, and in step with what they are made from. `make generate` writes them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)] // It writes, too.
#[path = "storm/record.rs"]
mod record;

use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn output(mut command: Command) -> String {
    let output = command.current_dir(root()).output().expect("the command runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("the output is text")
}

fn assert_in_step(file: &str, generated: &str) {
    let committed = std::fs::read_to_string(root().join(file)).unwrap_or_default();
    let differs = committed.lines().zip(generated.lines()).position(|(a, b)| a != b);
    assert!(
        committed == generated,
        "{file} is not what its source makes of it (first difference in line {}); run: make generate",
        differs.map_or(committed.lines().count().min(generated.lines().count()), |line| line) + 1
    );
}

#[test]
fn crds_are_those_of_the_types() {
    for kind in ["geminibatches", "geminiwebhooks"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gemini-operator"));
        command.args(["crd", kind]);
        assert_in_step(&format!("crds/{kind}.yaml"), &output(command));
    }
}

#[test]
fn install_yaml_is_that_of_the_chart() {
    let mut command = Command::new(root().join("deploy/render.sh"));
    command.args(["", "-"]);
    assert_in_step("deploy/install.yaml", &output(command));
}

/// `make storm` writes both, and no hand does.
#[test]
fn the_page_shows_the_sum_of_all_storms() {
    let read = |file: &str| std::fs::read_to_string(root().join(file)).expect("the file can be read");
    let (storms, page) = (read("docs/storm.tsv"), read("docs/never-pay-twice.md"));
    let table = record::table(&record::lines(&storms).unwrap());
    let is_in_step = record::page(&page, &table).unwrap() == page;
    assert!(is_in_step, "docs/never-pay-twice.md does not show docs/storm.tsv, which makes:\n{table}");
}
