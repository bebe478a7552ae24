//! Reads the references out of a source text.

/// One reference: the line, and the path's segments that matter.
#[derive(Debug, PartialEq, Eq)]
pub enum Reference {
    /// To a room of this crate, `crate::ROOM::…`; with the module after it, if it is named.
    Room(String, Option<String>),
    /// To another crate.
    Crate(String),
}

/// All references in a file, with their lines. `path` is relative to the repository, `crates` are the names of
/// dependencies as code spells them.
pub fn references(path: &str, text: &str, crates: &[String]) -> Vec<(usize, Reference)> {
    let code = without_comments_and_strings(text);
    let depth = module_depth(path);
    let mut found = vec![];
    let (mut line, mut braces) = (1, 0_usize);
    // The brace depths at which inline modules were opened.
    let mut modules: Vec<usize> = vec![];
    let mut words = Words { rest: &code, after_path: false };
    let mut previous = String::new();
    let mut module_ahead = false;
    while let Some(word) = words.next() {
        match word {
            "\n" => line += 1,
            "{" => {
                braces += 1;
                if std::mem::take(&mut module_ahead) {
                    modules.push(braces);
                }
            }
            "}" => {
                if modules.last() == Some(&braces) {
                    modules.pop();
                }
                braces = braces.saturating_sub(1);
            }
            ";" => module_ahead = false,
            _ if previous == "mod" => module_ahead = true,
            "crate" if !words.after_path && words.rest.starts_with("::") => {
                found.extend(targets(&words.rest[2..]).into_iter().map(|target| (line, target)));
            }
            "super" if !words.after_path && words.rest.starts_with("::") => {
                let chain = 1 + words.rest.split("::").skip(1).take_while(|word| *word == "super").count();
                if depth + modules.len() == chain {
                    let rest = words.rest.splitn(chain + 1, "::").last().unwrap_or_default();
                    found.extend(targets(rest).into_iter().map(|target| (line, target)));
                }
            }
            name if !words.after_path
                && (words.rest.starts_with("::") || matches!(previous.as_str(), "use"))
                && crates.iter().any(|other| other == name) =>
            {
                found.push((line, Reference::Crate(name.to_owned())));
            }
            _ => {}
        }
        if !word.trim().is_empty() {
            word.clone_into(&mut previous);
        }
    }
    found
}

/// How many modules a file is below the crate's root.
fn module_depth(path: &str) -> usize {
    let inside = path.strip_prefix("src/").unwrap_or(path).trim_end_matches(".rs");
    let inside = inside.strip_suffix("/mod").unwrap_or(inside);
    if matches!(inside, "lib" | "main") { 0 } else { inside.split('/').count() }
}

/// What stands after `crate::`: one path or a group of them.
fn targets(rest: &str) -> Vec<Reference> {
    let Some(group) = rest.strip_prefix('{') else { return target(rest).into_iter().collect() };
    let (mut depth, mut start, mut found) = (0_usize, 0, vec![]);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.extend(target(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found
}

fn target(path: &str) -> Option<Reference> {
    let mut names = path.trim_start().split("::").map(|name| {
        let end = name.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(name.len());
        &name[..end]
    });
    let room = names.next().filter(|name| !name.is_empty())?;
    let module = names.next().filter(|name| !name.is_empty() && path.contains("::"));
    Some(Reference::Room(room.to_owned(), module.map(ToOwned::to_owned)))
}

/// Identifiers, line ends and single characters, in order.
struct Words<'a> {
    rest: &'a str,
    /// The present word is not the first of its path.
    after_path: bool,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        self.after_path = false;
        loop {
            if let Some(rest) = self.rest.strip_prefix("::") {
                self.rest = rest;
                self.after_path = true;
                continue;
            }
            let first = self.rest.chars().next()?;
            let end = if first.is_alphanumeric() || first == '_' {
                self.rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(self.rest.len())
            } else {
                first.len_utf8()
            };
            let (word, rest) = self.rest.split_at(end);
            self.rest = rest;
            if word == " " {
                continue;
            }
            return Some(word);
        }
    }
}

/// The text with comments and the insides of string literals blanked out; line ends stay.
fn without_comments_and_strings(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(end) = string_end(rest) {
            end
        } else if let Some(end) = character_end(rest) {
            end
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        code.extend(rest[..skipped].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &rest[skipped..];
    }
    code
}

/// Where the string literal that begins here ends; none if none begins here.
fn string_end(text: &str) -> Option<usize> {
    if let Some(inside) = text.strip_prefix('"') {
        let mut escaped = false;
        let end = inside.char_indices().find(|(_, c)| {
            let ends = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        return Some(end.map_or(text.len(), |(at, _)| at + 2));
    }
    let raw = text.strip_prefix('r')?;
    let hashes = raw.len() - raw.trim_start_matches('#').len();
    raw[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let start = 1 + hashes + 1;
    Some(text[start..].find(&close).map_or(text.len(), |at| start + at + close.len()))
}

/// Where the character literal that begins here ends; a lifetime is none.
fn character_end(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('\'')?;
    let mut chars = inside.char_indices();
    if let Some((_, '\\')) = chars.next() {
        return inside[2..].find('\'').map(|at| at + 4);
    }
    chars.next().filter(|(_, c)| *c == '\'').map(|(at, _)| at + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str, text: &str) -> Vec<String> {
        let crates = ["kube".to_owned(), "serde_yaml".to_owned()];
        let name = |reference: Reference| match reference {
            Reference::Room(room, Some(module)) => format!("{room}::{module}"),
            Reference::Room(room, None) => room,
            Reference::Crate(name) => format!("extern {name}"),
        };
        references(path, text, &crates).into_iter().map(|(line, r)| format!("{line}: {}", name(r))).collect()
    }

    #[test]
    fn sees_every_form_of_reference() {
        let text = "use crate::api::batch;\nuse crate::{gemini::Client,\n rows};\nlet x = crate::submit::step();\n\
                    use kube::Api;\nlet y = serde_yaml::to_string();\nuse kube;\n";
        assert_eq!(
            read("src/batch/plan.rs", text),
            [
                "1: api::batch",
                "2: gemini::Client",
                "2: rows",
                "4: submit::step",
                "5: extern kube",
                "6: extern serde_yaml",
                "7: extern kube"
            ]
        );
    }

    #[test]
    fn follows_super_out_of_the_room_only() {
        assert_eq!(read("src/batch/plan.rs", "use super::observed::X;"), [""; 0]);
        assert_eq!(read("src/batch/plan.rs", "use super::super::webhook::X;"), ["1: webhook::X"]);
        assert_eq!(read("src/batch/mod.rs", "use super::webhook::X;"), ["1: webhook::X"]);
        assert_eq!(read("src/batch/mod.rs", "mod tests { use super::*; }"), [""; 0]);
        assert_eq!(read("src/batch/mod.rs", "mod tests { use super::super::webhook; }"), ["1: webhook"]);
        assert_eq!(
            read("src/batch/mod.rs", "mod plan;\nfn a() { super::webhook::go(); }"),
            ["2: webhook::go"]
        );
    }

    #[test]
    fn does_not_see_what_is_not_code() {
        let text = "// crate::api\n/* crate::api */ let a = \"crate::api\"; let b = r#\"crate::\"api\"#; let c = '\"';\n\
                    fn f<'a>(x: &'a str) {} let d = '\\''; x::crate_::y; my_kube::z; a::kube::b;";
        assert_eq!(read("src/batch/plan.rs", text), [""; 0]);
    }
}
