//! Our files at Gemini: by the prefix of one K, and whether one is what was uploaded.

use crate::gemini::{ApiKey, Class, Error, File, FileState, Gemini};

/// More pages than any project has; a provider that repeats a page token must not hold us for ever.
const MAX_PAGES: usize = 10_000;

/// Names of all files of the key's project that begin with `prefix`. An error on any page voids the whole.
pub async fn with_prefix(gemini: &Gemini, key: &ApiKey, prefix: &str) -> Result<Vec<String>, Error> {
    let (mut names, mut token) = (vec![], None);
    for _ in 0..MAX_PAGES {
        let page = gemini.list_files(key, token.as_deref()).await?;
        if page.unreadable > 0 {
            return Err(Error::transient("files.list holds entries that cannot be read"));
        }
        names.extend(page.files.into_iter().map(|f| f.name).filter(|name| name.starts_with(prefix)));
        token = page.next_page_token;
        if token.is_none() {
            return Ok(names);
        }
    }
    Err(Error::transient("files.list does not come to an end"))
}

/// Deletes a file; that it is gone already is fine.
pub async fn remove(gemini: &Gemini, key: &ApiKey, name: &str) -> Result<(), Error> {
    match gemini.delete_file(key, name).await {
        Err(e) if e.class != Class::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Whether a file may be paid for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    Usable,
    /// It is what was uploaded, and Gemini is still busy with it.
    Processing,
    /// It is not what was uploaded; the message says in what way.
    Damaged(String),
}

/// PURE: compares a file at Gemini with what was rendered. A size or a digest that Gemini does not give, or gives in a
/// form that nobody has seen, is no difference.
pub fn condition(file: &File, bytes: i64, sha256: &str) -> Condition {
    let name = &file.name;
    if let Some(size) = file.size_bytes.filter(|size| *size != bytes) {
        return Condition::Damaged(format!("{name} has {size} bytes at Gemini, {bytes} were uploaded"));
    }
    if let Some(sha) = file.sha256.as_ref().filter(|sha| *sha != sha256) {
        return Condition::Damaged(format!("{name} has SHA-256 {sha} at Gemini, {sha256} was uploaded"));
    }
    match file.state {
        FileState::Failed => Condition::Damaged(format!("Gemini could not process {name}")),
        FileState::Processing => Condition::Processing,
        // A state of tomorrow: the submission will show.
        FileState::Active | FileState::Unknown(_) => Condition::Usable,
    }
}

/// Deletes all files that begin with `prefix`.
pub async fn remove_all(gemini: &Gemini, key: &ApiKey, prefix: &str) -> Result<(), Error> {
    for name in with_prefix(gemini, key, prefix).await? {
        remove(gemini, key, &name).await?;
    }
    Ok(())
}
