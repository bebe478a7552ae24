//! The dependency direction of docs and design, read out of the sources: who may know whom.
//!
//! A reference is any path that begins with `crate::`, with enough `super::` to leave its room, or with the name of
//! a dependency. Comments and string literals do not count.

// Helpers of tests are tests: they end a test by a panic that says why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "architecture/reader.rs"]
mod reader;
#[path = "architecture/rules.rs"]
mod rules;

use std::fs;
use std::path::{Path, PathBuf};

use rules::{Source, violations};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust sources of the repository, with paths relative to its root.
fn sources() -> Vec<Source> {
    let mut found = vec![];
    for folder in ["src", "emulator", "tests", "examples", "benches"] {
        collect(&root().join(folder), &mut found);
    }
    found.sort();
    let read = |path: PathBuf| Source {
        text: fs::read_to_string(&path).unwrap(),
        path: path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(),
    };
    found.into_iter().map(read).collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn the_rooms_know_only_whom_they_may() {
    let sources = sources();
    assert!(sources.iter().any(|source| source.path == "src/api/batch.rs"), "the sources were not found");
    let found = violations(&sources);
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// The two readings of the wire must stay two: neither package depends on the other.
#[test]
fn the_emulator_is_a_package_of_its_own() {
    let emulator = fs::read_to_string(root().join("emulator/Cargo.toml")).unwrap();
    assert!(!emulator.contains("gemini-operator"), "emulator/Cargo.toml names the operator");
    let operator = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    // Tests may ask it what it would answer; the operator itself may not know it.
    let dependencies = operator.split("\n[dependencies]\n").nth(1).and_then(|rest| rest.split("\n[").next());
    let dependencies = dependencies.expect("Cargo.toml has dependencies");
    assert!(!dependencies.contains("gemini-emulator"), "the operator depends on the emulator's package");
}

/// Who judges the operator shares no type with it: a mistake in one would hide itself.
#[test]
fn the_checker_is_a_package_of_its_own() {
    let checker = fs::read_to_string(root().join("tests/checker/Cargo.toml")).unwrap();
    let dependencies = checker.split("\n[dependencies]\n").nth(1).expect("Cargo.toml has dependencies");
    assert!(!dependencies.contains("gemini"), "tests/checker/Cargo.toml names the operator or the emulator");
    let sources: Vec<Source> =
        sources().into_iter().filter(|source| source.path.starts_with("tests/checker/")).collect();
    assert!(!sources.is_empty(), "the sources were not found");
    for source in sources {
        let elsewhere = ["#[path", "include!("].iter().any(|words| source.text.contains(words));
        assert!(!elsewhere, "{}: the checker takes no source from elsewhere", source.path);
    }
}

/// Every room that there is has rules: a new folder must say whom it may know.
#[test]
fn every_room_has_rules() {
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let room = name.trim_end_matches(".rs");
        assert!(rules::is_known(room), "src/{name} is not in tests/architecture/rules.rs");
    }
}
