//! The Files API: resumable uploads, streamed downloads, and the listing that proves a fence.

use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;
use reqwest::{Method, Response, Url};
use serde::Deserialize;
use serde_json::Value;

use super::error::{Class, Error, Kind};
use super::http::{Answer, ApiKey, Gemini, complete, key_header, key_header_name, with_query};
use super::wire::{id_in, integer, time};

/// The API's maximum.
const PAGE_SIZE: &str = "100";

/// A file at Gemini.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// `files/…`
    pub name: String,
    pub display_name: String,
    pub size_bytes: Option<i64>,
    /// In lower-case hex, whichever way it was encoded on the wire.
    pub sha256: Option<String>,
    pub state: FileState,
    pub create_time: Option<Timestamp>,
    /// When Gemini deletes it.
    pub expiration_time: Option<Timestamp>,
}

/// State of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileState {
    Processing,
    Active,
    Failed,
    Unknown(String),
}

/// One page of the listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilePage {
    pub files: Vec<File>,
    /// Entries without a usable name: a listing with such an entry proves nothing.
    pub unreadable: usize,
    /// `None` on the last page.
    pub next_page_token: Option<String>,
}

/// A download in progress.
pub struct Download {
    /// `Content-Length`, if Gemini gave one. The stream ends with an error when fewer bytes came.
    pub length: Option<u64>,
    pub stream: BoxStream<'static, Result<Bytes, Error>>,
}

impl std::fmt::Debug for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download").field("length", &self.length).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FileWire {
    name: Option<String>,
    display_name: Option<String>,
    size_bytes: Option<Value>,
    sha256_hash: Option<String>,
    state: Option<String>,
    create_time: Option<String>,
    expiration_time: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileList {
    #[serde(default)]
    files: Vec<FileWire>,
    next_page_token: Option<String>,
}

impl FileWire {
    pub(super) fn into_file(self) -> Option<File> {
        let name = self.name.filter(|name| id_in("files", name).is_ok())?;
        Some(File {
            name,
            display_name: self.display_name.unwrap_or_default(),
            size_bytes: integer(self.size_bytes.as_ref()),
            sha256: self.sha256_hash.as_deref().and_then(hex_digest),
            state: match self.state.as_deref() {
                Some("PROCESSING") => FileState::Processing,
                Some("ACTIVE") => FileState::Active,
                Some("FAILED") => FileState::Failed,
                other => FileState::Unknown(other.unwrap_or_default().to_owned()),
            },
            create_time: time(self.create_time.as_deref()),
            expiration_time: time(self.expiration_time.as_deref()),
        })
    }
}

/// Base64 of the digest's hex text is what was seen, base64 of its 32 bytes is what the reference suggests.
fn hex_digest(base64: &str) -> Option<String> {
    let bytes = BASE64.decode(base64.as_bytes()).ok()?;
    match bytes.len() {
        32 => Some(HEXLOWER.encode(&bytes)),
        64 if bytes.iter().all(u8::is_ascii_hexdigit) => {
            String::from_utf8(bytes).ok().map(|hex| hex.to_ascii_lowercase())
        }
        _ => None,
    }
}

impl Gemini {
    /// One file. `NotFound` has `http_status` 404 or 403: Gemini answers 403 for a file that is gone, so a 403 alone
    /// proves nothing.
    pub async fn get_file(&self, key: &ApiKey, name: &str) -> Result<File, Error> {
        let url = self.url(&format!("files/{}", id_in("files", name)?));
        let answer = self.get(Kind::File, key, url).await?;
        named(&answer, answer.json::<FileWire>(Kind::File)?, name)
    }

    /// Deletes a file. `Ok` is Gemini's 200: the file was there and is gone now. Errors as for `get_file`.
    pub async fn delete_file(&self, key: &ApiKey, name: &str) -> Result<(), Error> {
        let url = self.url(&format!("files/{}", id_in("files", name)?));
        self.call(Kind::File, key, self.request(Method::DELETE, url)).await.map(drop)
    }

    /// One page of all files of the key's project.
    pub async fn list_files(&self, key: &ApiKey, page_token: Option<&str>) -> Result<FilePage, Error> {
        let mut query = vec![("pageSize", PAGE_SIZE)];
        query.extend(page_token.map(|token| ("pageToken", token)));
        let url = with_query(self.url("files"), &query);
        let list: FileList = self.get(Kind::Plain, key, url).await?.json(Kind::Plain)?;
        let total = list.files.len();
        let files: Vec<File> = list.files.into_iter().filter_map(FileWire::into_file).collect();
        Ok(FilePage {
            unreadable: total - files.len(),
            files,
            next_page_token: list.next_page_token.filter(|t| !t.is_empty()),
        })
    }

    /// Opens a generated file for reading. Where the answer says 404, the other path that is documented is tried. One of
    /// the two is served; what the API says there counts, also when a front end knows nothing of the other.
    pub async fn download(&self, key: &ApiKey, name: &str) -> Result<Download, Error> {
        let path = format!("files/{}:download", id_in("files", name)?);
        match self.open(key, self.url(&path)).await {
            Err(first) if first.http_status == Some(404) => {
                match self.open(key, self.prefixed_url("download", &path)).await {
                    Err(second) if second.http_status == Some(404) && first.class == Class::NotFound => {
                        Err(first)
                    }
                    result => result,
                }
            }
            result => result,
        }
    }

    async fn open(&self, key: &ApiKey, url: Url) -> Result<Download, Error> {
        let request = self
            .request(Method::GET, with_query(url, &[("alt", "media")]))
            .header(key_header_name(), key_header(key)?);
        // No limit over the whole: 2 GB take as long as they take, as long as something comes.
        let response = tokio::time::timeout(self.timeouts.call, request.send())
            .await
            .map_err(|_| silent())?
            .map_err(|e| Error::transport(Kind::File, e, key))?;
        if !response.status().is_success() {
            let refusal = tokio::time::timeout(self.timeouts.call, complete(Kind::File, response, key));
            return match refusal.await.map_err(|_| silent())? {
                Err(e) => Err(e),
                Ok(answer) => Err(Error::unusable(Kind::File, answer.status, "no content")),
            };
        }
        let wait = self.timeouts.transfer;
        let key = key.clone();
        let next = move |mut response: Response| {
            let key = key.clone();
            async move {
                let chunk = tokio::time::timeout(wait, response.chunk())
                    .await
                    .map_err(|_| silent())?
                    // A body shorter than its Content-Length, or without its last chunk, is an error here.
                    .map_err(|e| Error::transport(Kind::File, e, &key))?;
                Ok(chunk.map(|chunk| (chunk, response)))
            }
        };
        Ok(Download { length: response.content_length(), stream: stream::try_unfold(response, next).boxed() })
    }
}

/// The file in an answer, if it is the one that was asked for.
pub(super) fn named(answer: &Answer, wire: FileWire, name: &str) -> Result<File, Error> {
    wire.into_file()
        .filter(|file| file.name == name)
        .ok_or_else(|| Error::unusable(Kind::File, answer.status, "it speaks of another file"))
}

fn silent() -> Error {
    Error::local(Class::Transient, "nothing came from Gemini within the time limit")
}
