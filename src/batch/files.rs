//! Our files at Gemini, by the prefix of one K.

use crate::gemini::{ApiKey, Class, Error, Gemini};

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
