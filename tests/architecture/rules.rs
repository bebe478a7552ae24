//! Who may know whom.

use super::reader::{Reference, references};

/// A source file.
pub struct Source {
    /// Relative to the repository's root.
    pub path: String,
    pub text: String,
}

/// A file may have so many lines, other than type definitions.
const MAX_LINES: usize = 450;

/// Type definitions: their length is that of the resource that they define.
const TYPE_DEFINITIONS: [&str; 3] = ["src/api/batch.rs", "src/api/webhook.rs", "emulator/src/faults.rs"];

/// The one module that may use the archived serde_yaml.
const YAML_ROOM: &str = "yaml";

/// Rooms that only put the others together.
const ASSEMBLY: [&str; 4] = ["main", "lib", "cli", "commands"];

/// What a room may know.
struct Room {
    /// Folder or file below `src/`; the longest that fits counts.
    path: &'static str,
    /// Rooms of this crate, as `room` or `room::module`.
    rooms: &'static [&'static str],
    /// Other crates.
    crates: Crates,
}

enum Crates {
    AllBut(&'static [&'static str]),
    Only(&'static [&'static str]),
}

/// Nothing that does input or output.
const PURE: Crates = Crates::Only(&[
    "serde",
    "serde_json",
    "thiserror",
    "jiff",
    "bytes",
    "memchr",
    "secrecy",
    "hmac",
    "sha2",
    "data_encoding",
    "ring",
    "ed25519_dalek",
]);
/// What both kinds of resources are made of.
const WORKSHOP: &[&str] = &[
    "api",
    "gemini",
    "submit",
    "rows",
    "source",
    "sink",
    "controller",
    // Whether a user's secret can be used is for those to say who use it.
    "receiver::signature",
];

const BATCH: &[&str] = &["api", "gemini", "submit", "rows", "source", "sink", "controller"];

const ROOMS: [Room; 14] = [
    // Types only.
    Room {
        path: "api",
        rooms: &[],
        crates: Crates::AllBut(&["reqwest", "hyper", "hyper_util", "axum", "tokio", "tokio_util"]),
    },
    Room { path: "gemini", rooms: &[], crates: Crates::AllBut(&["kube", "k8s_openapi", "schemars", "axum"]) },
    Room { path: "submit", rooms: &[], crates: PURE },
    Room { path: "rows", rooms: &[], crates: PURE },
    Room { path: "source", rooms: &["api", "rows"], crates: Crates::AllBut(&["reqwest", "axum"]) },
    Room { path: "sink", rooms: &["api", "rows"], crates: Crates::AllBut(&["reqwest", "axum"]) },
    Room { path: "batch", rooms: BATCH, crates: Crates::AllBut(&["reqwest", "axum"]) },
    Room { path: "webhook", rooms: WORKSHOP, crates: Crates::AllBut(&["reqwest", "axum"]) },
    Room {
        path: "controller",
        rooms: &["api", "gemini", "submit", "rows", "source", "sink", "runtime", "batch", "webhook"],
        crates: Crates::AllBut(&["reqwest", "axum"]),
    },
    // It faces the internet: it holds no API key, so it cannot need the Gemini client.
    Room { path: "receiver", rooms: &["api", "runtime"], crates: Crates::AllBut(&["reqwest"]) },
    // Its one call to the outside, for a document that everybody may read.
    Room {
        path: "receiver/jwks_fetch",
        rooms: &["receiver::limits", "receiver::public_keys", "receiver::signature"],
        crates: Crates::AllBut(&["kube", "k8s_openapi", "axum", "secrecy"]),
    },
    Room { path: "receiver/signature", rooms: &[], crates: PURE },
    // Process plumbing without domain words.
    Room { path: "runtime", rooms: &[], crates: Crates::AllBut(&["schemars"]) },
    Room { path: YAML_ROOM, rooms: &[], crates: Crates::Only(&["serde", "serde_yaml", "thiserror"]) },
];

/// Whether there are rules for a room.
pub fn is_known(room: &str) -> bool {
    ASSEMBLY.contains(&room) || ROOMS.iter().any(|known| known.path == room)
}

/// Dependencies whose use is looked at, as code spells them.
fn crates() -> Vec<String> {
    let manifest = include_str!("../../Cargo.toml");
    let dependencies = manifest.split_once("\n[dependencies]\n").expect("there are dependencies").1;
    let dependencies = dependencies.split("\n[").next().unwrap_or_default();
    let names = dependencies.lines().filter_map(|line| line.split([' ', '.', '=']).next());
    let names = names.filter(|name| !name.is_empty() && !name.starts_with('#'));
    let mut names: Vec<String> = names.map(|name| name.replace('-', "_")).collect();
    names.extend(["gemini_operator".to_owned(), "gemini_emulator".to_owned()]);
    names
}

/// Everything that is wrong, as `path:line: words`.
pub fn violations(sources: &[Source]) -> Vec<String> {
    let crates = crates();
    sources.iter().flat_map(|source| check(source, &crates)).collect()
}

fn check(source: &Source, crates: &[String]) -> Vec<String> {
    let Source { path, text } = source;
    let mut wrong = vec![];
    let lines = text.lines().count();
    if lines > MAX_LINES && !TYPE_DEFINITIONS.contains(&path.as_str()) {
        wrong.push(format!("{path}: {lines} lines; a file has at most {MAX_LINES}"));
    }
    for (line, reference) in references(path, text, crates) {
        if let Some(words) = judge(path, &reference) {
            wrong.push(format!("{path}:{line}: {words}"));
        }
    }
    if path.starts_with("emulator/") && (text.contains("#[path") || text.contains("include!(")) {
        wrong.push(format!("{path}: the emulator takes no source from elsewhere"));
    }
    wrong
}

/// What is wrong with a reference, if anything.
fn judge(path: &str, reference: &Reference) -> Option<String> {
    if path.starts_with("emulator/") {
        let forbidden = matches!(reference, Reference::Crate(name) if name == "gemini_operator");
        return forbidden.then(|| "the emulator shares no code with the operator".to_owned());
    }
    let inside = path.strip_prefix("src/")?;
    // A room's tests may stand in for its neighbours.
    if inside.ends_with("/tests.rs") {
        return None;
    }
    let room = inside.split('/').next().unwrap_or_default().trim_end_matches(".rs");
    if let Reference::Crate(name) = reference {
        if name == "gemini_emulator" {
            return Some("the operator shares no code with the emulator".to_owned());
        }
        if name == "serde_yaml" && room != YAML_ROOM {
            return Some(format!("serde_yaml is used in src/{YAML_ROOM}.rs only"));
        }
    }
    if ASSEMBLY.contains(&room) {
        return None;
    }
    let in_room = |room: &&Room| {
        inside == format!("{}.rs", room.path) || inside.starts_with(&format!("{}/", room.path))
    };
    let Some(rules) = ROOMS.iter().filter(in_room).max_by_key(|room| room.path.len()) else {
        return Some(format!("there are no rules for src/{room}"));
    };
    match reference {
        Reference::Room(name, module) => {
            let whole = module.as_ref().map_or(name.clone(), |module| format!("{name}::{module}"));
            let own = rules.path == name || rules.path == whole.replace("::", "/");
            let allowed = own || rules.rooms.iter().any(|room| room == name || *room == whole);
            (!allowed).then(|| format!("{} must not know {whole}", rules.path))
        }
        Reference::Crate(name) => {
            let name = name.as_str();
            let allowed = match rules.crates {
                Crates::AllBut(names) => !names.contains(&name),
                Crates::Only(names) => names.contains(&name),
            };
            (!allowed).then(|| format!("{} must not use the crate {name}", rules.path))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        violations(&[Source { path: path.into(), text: text.into() }])
    }

    #[test]
    fn planted_violations_are_caught() {
        for (path, text, words) in [
            (
                "src/api/batch.rs",
                "use crate::gemini::Client;",
                "src/api/batch.rs:1: api must not know gemini::Client",
            ),
            ("src/gemini/http.rs", "\nuse crate::api;", "src/gemini/http.rs:2: gemini must not know api"),
            (
                "src/gemini/http.rs",
                "use kube::Api;",
                "src/gemini/http.rs:1: gemini must not use the crate kube",
            ),
            ("src/gemini/mod.rs", "use super::api::X;", "src/gemini/mod.rs:1: gemini must not know api::X"),
            (
                "src/submit/step.rs",
                "tokio::spawn(x)",
                "src/submit/step.rs:1: submit must not use the crate tokio",
            ),
            (
                "src/rows/mod.rs",
                "use crate::{sink::A, rows::B};",
                "src/rows/mod.rs:1: rows must not know sink::A",
            ),
            (
                "src/receiver/handler.rs",
                "use crate::controller::context::Context;",
                "src/receiver/handler.rs:1: receiver must not know controller::context",
            ),
            (
                "src/receiver/signature/mod.rs",
                "use crate::receiver::keys::Key;",
                "src/receiver/signature/mod.rs:1: receiver/signature must not know receiver::keys",
            ),
            (
                "src/batch/act.rs",
                "crate::webhook::x();",
                "src/batch/act.rs:1: batch must not know webhook::x",
            ),
            (
                "src/batch/points.rs",
                "use crate::runtime::shutdown;",
                "src/batch/points.rs:1: batch must not know runtime::shutdown",
            ),
            (
                "src/runtime/tls.rs",
                "use crate::api::GROUP;",
                "src/runtime/tls.rs:1: runtime must not know api::GROUP",
            ),
            (
                "src/main.rs",
                "serde_yaml::to_string(x)",
                "src/main.rs:1: serde_yaml is used in src/yaml.rs only",
            ),
            ("src/extra/mod.rs", "use crate::api;", "src/extra/mod.rs:1: there are no rules for src/extra"),
            (
                "emulator/src/rows.rs",
                "use gemini_operator::rows;",
                "emulator/src/rows.rs:1: the emulator shares no code with the operator",
            ),
            (
                "emulator/src/rows.rs",
                "#[path = \"../../src/rows/mod.rs\"] mod rows;",
                "emulator/src/rows.rs: the emulator takes no source from elsewhere",
            ),
        ] {
            assert_eq!(found(path, text), [words], "{path}: {text}");
        }
        assert_eq!(
            found("src/batch/plan.rs", &"\n".repeat(451)),
            ["src/batch/plan.rs: 451 lines; a file has at most 450"]
        );
    }

    #[test]
    fn what_is_allowed_is_let_through() {
        for (path, text) in [
            ("src/batch/act.rs", "use crate::api::batch::Run;\nuse crate::gemini::Client;"),
            ("src/receiver/handler.rs", "use crate::runtime::readiness;\nuse super::signature::verify;"),
            ("src/main.rs", "use gemini_operator::cli;"),
            ("src/yaml.rs", "serde_yaml::to_string(x)"),
            ("src/api/batch.rs", "use kube::CustomResource;"),
        ] {
            assert_eq!(found(path, text), [""; 0], "{path}: {text}");
        }
        assert_eq!(found("src/api/batch.rs", &"\n".repeat(900)), [""; 0]);
    }
}
