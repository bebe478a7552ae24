//! The resumable upload protocol.
//!
//! `start` gives a URL, chunks go there, and the last one finalises the file. After a broken chunk the server is asked
//! how far it got (`query`) and the upload goes on from there; so a chunk that arrived is never sent twice, and a
//! finalise whose answer was lost is not taken for a failure.

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::json;

use super::error::{Class, Error, Kind};
use super::files::{File, FileWire, named};
use super::http::{Answer, ApiKey, Gemini, complete};
use super::wire::id_in;

/// Size of a chunk: what the SDKs send, and the granularity that the server announces.
const CHUNK_BYTES: usize = 8 * 1024 * 1024;
/// Failures in a row, without progress, until the upload is given up.
const MAX_FAILURES: u32 = 4;
const MIME_TYPE: &str = "application/jsonl";

const COMMAND: &str = "x-goog-upload-command";
const OFFSET: &str = "x-goog-upload-offset";
const STATUS: &str = "x-goog-upload-status";
const RECEIVED: &str = "x-goog-upload-size-received";
const UPLOAD_URL: &str = "x-goog-upload-url";

#[derive(Deserialize)]
struct Finalised {
    file: FileWire,
}

/// What the server says about the upload.
enum Step {
    /// It has everything up to this offset.
    Received(usize),
    /// The file is complete; the answer describes it if it came with the last chunk.
    Final(Option<Box<FileWire>>, Answer),
}

impl Gemini {
    /// Uploads JSON Lines under a name of our own choice (`files/…`). Resumes by itself after a broken chunk.
    pub async fn upload(
        &self,
        key: &ApiKey,
        name: &str,
        display_name: &str,
        body: Bytes,
    ) -> Result<File, Error> {
        id_in("files", name)?;
        let url = self.start_upload(key, name, display_name, body.len()).await?;
        let (mut offset, mut failures, mut is_in_doubt) = (0, 0, false);
        loop {
            let step = if is_in_doubt {
                self.query_upload(key, &url).await
            } else {
                self.send_chunk(key, &url, &body, offset).await
            };
            match step {
                Ok(Step::Received(received)) if received <= body.len() => {
                    if received > offset {
                        failures = 0;
                    }
                    (offset, is_in_doubt) = (received, false);
                }
                Ok(Step::Received(_)) => {
                    return Err(Error::local(Class::Transient, "Gemini claims more bytes than were sent"));
                }
                Ok(Step::Final(Some(file), answer)) => return named(&answer, *file, name),
                Ok(Step::Final(None, _)) => return self.get_file(key, name).await,
                // Of a session that is gone nothing is left to resume; a new upload may work.
                Err(e) if e.http_status == Some(404) => return Err(Error { class: Class::Transient, ..e }),
                Err(e) if e.class == Class::Transient && failures < MAX_FAILURES => {
                    tokio::time::sleep(self.timeouts.resume * 2_u32.pow(failures)).await;
                    failures += 1;
                    is_in_doubt = true;
                }
                Err(e) => return Err(e),
            }
        }
    }

    async fn start_upload(
        &self,
        key: &ApiKey,
        name: &str,
        display_name: &str,
        size: usize,
    ) -> Result<Url, Error> {
        let request = self
            .request(Method::POST, self.prefixed_url("upload", "files"))
            .header("x-goog-upload-protocol", "resumable")
            .header(COMMAND, "start")
            .header("x-goog-upload-header-content-length", size)
            .header("x-goog-upload-header-content-type", MIME_TYPE)
            .json(&json!({ "file": {
                "name": name,
                "displayName": display_name,
                "mimeType": MIME_TYPE,
                "sizeBytes": size.to_string(),
            }}));
        let answer = self.call(Kind::Plain, key, request).await?;
        let url = header(&answer.headers, UPLOAD_URL)
            .and_then(|text| Url::parse(text).ok())
            .ok_or_else(|| Error::unusable(Kind::Plain, answer.status, "it has no upload URL"))?;
        // Prompts go there: never to another host, never without TLS where the base has it.
        if self.is_same_origin(&url) {
            Ok(url)
        } else {
            Err(Error::local(Class::Rejected, "the upload URL leads to another host than Gemini's"))
        }
    }

    async fn send_chunk(&self, key: &ApiKey, url: &Url, body: &Bytes, offset: usize) -> Result<Step, Error> {
        let end = body.len().min(offset + CHUNK_BYTES);
        let is_last = end == body.len();
        let request = self
            // The URL's upload id is the credential; the key does not travel with the data.
            .request(Method::POST, url.clone())
            .timeout(self.timeouts.transfer)
            .header(COMMAND, if is_last { "upload, finalize" } else { "upload" })
            .header(OFFSET, offset)
            .header(CONTENT_TYPE, MIME_TYPE)
            .body(body.slice(offset..end));
        let response = request.send().await.map_err(|e| Error::transport(Kind::Plain, e, key))?;
        let answer = complete(Kind::Plain, response, key).await?;
        match header(&answer.headers, STATUS) {
            Some("active") if !is_last => Ok(Step::Received(end)),
            Some("final") if is_last => {
                let file = answer.json::<Finalised>(Kind::Plain).ok().map(|f| Box::new(f.file));
                Ok(Step::Final(file, answer))
            }
            // A front end's 200, or a server that lost count.
            _ => Err(Error::unusable(Kind::Plain, answer.status, "it does not say how far the upload is")),
        }
    }

    async fn query_upload(&self, key: &ApiKey, url: &Url) -> Result<Step, Error> {
        let request = self
            .request(Method::POST, url.clone())
            .timeout(self.timeouts.call)
            .header(COMMAND, "query")
            .body(Bytes::new());
        let response = request.send().await.map_err(|e| Error::transport(Kind::Plain, e, key))?;
        let answer = complete(Kind::Plain, response, key).await?;
        match header(&answer.headers, STATUS) {
            Some("active") => header(&answer.headers, RECEIVED)
                .and_then(|text| text.trim().parse().ok())
                .map(Step::Received)
                .ok_or_else(|| {
                    Error::unusable(Kind::Plain, answer.status, "it does not say how far the upload is")
                }),
            Some("final") => Ok(Step::Final(None, answer)),
            _ => Err(Error::local(Class::Transient, "Gemini has dropped the upload")),
        }
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
