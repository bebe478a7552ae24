//! The Files API: resumable uploads, streamed downloads, and the listing that proves a fence.

use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;

use super::error::Error;
use super::http::{ApiKey, Gemini};

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

impl Gemini {
    /// Uploads JSON Lines under a name of our own choice.
    pub async fn upload(
        &self,
        key: &ApiKey,
        name: &str,
        display_name: &str,
        body: Bytes,
    ) -> Result<File, Error> {
        let _ = (key, name, display_name, body);
        todo!()
    }

    /// One file. `NotFound` has `http_status` 404 or 403: Gemini answers 403 for a file that is gone, so a 403 alone
    /// proves nothing.
    pub async fn get_file(&self, key: &ApiKey, name: &str) -> Result<File, Error> {
        let _ = (key, name);
        todo!()
    }

    /// Deletes a file. `Ok` is Gemini's 200: the file was there and is gone now. Errors as for `get_file`.
    pub async fn delete_file(&self, key: &ApiKey, name: &str) -> Result<(), Error> {
        let _ = (key, name);
        todo!()
    }

    /// One page of all files of the key's project.
    pub async fn list_files(&self, key: &ApiKey, page_token: Option<&str>) -> Result<FilePage, Error> {
        let _ = (key, page_token);
        todo!()
    }

    /// Opens a generated file for reading.
    pub async fn download(&self, key: &ApiKey, name: &str) -> Result<Download, Error> {
        let _ = (key, name);
        todo!()
    }
}
