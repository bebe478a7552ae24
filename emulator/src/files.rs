//! Files: resumable upload, get, list, delete, download; everything ends after 48 h of the emulator's clock.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::calls::Version;
use crate::clock::{HOUR, Nanos, rfc3339};
use crate::digest::file_hash;
use crate::errors::ApiError;
use crate::http::{Answer, Context, Reply};
use crate::json::{field, int};
use crate::page;
use crate::state::{App, State};

pub const LIFE: Nanos = 48 * HOUR;
/// The provider's limit for one file.
pub const LIMIT: usize = 2 * 1024 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Uploaded,
    Generated,
}

#[derive(Clone, Debug)]
pub struct StoredFile {
    pub project: String,
    pub display_name: String,
    pub mime_type: String,
    pub bytes: Bytes,
    pub hash: String,
    pub created: Nanos,
    pub expires: Nanos,
    pub visible: Nanos,
    pub source: Source,
}

/// An upload that goes on.
#[derive(Debug)]
pub struct Upload {
    pub project: String,
    id: Option<String>,
    display_name: String,
    mime_type: String,
    expected: Option<u64>,
    chunks: Vec<Bytes>,
    received: u64,
    finished: bool,
    list_lag: Nanos,
}

impl StoredFile {
    pub fn new(project: &str, display_name: &str, bytes: Bytes, source: Source, now: Nanos) -> Self {
        Self {
            project: project.to_owned(),
            display_name: display_name.to_owned(),
            mime_type: "application/jsonl".into(),
            hash: file_hash(&bytes),
            bytes,
            created: now,
            expires: now.saturating_add(LIFE),
            visible: now,
            source,
        }
    }

    fn json(&self, id: &str, base: &str, version: Version) -> Value {
        let mut file = json!({
            "name": format!("files/{id}"),
            "mimeType": self.mime_type,
            "sizeBytes": self.bytes.len().to_string(),
            "createTime": rfc3339(self.created),
            "updateTime": rfc3339(self.created),
            "expirationTime": rfc3339(self.expires),
            "sha256Hash": self.hash,
            "uri": format!("{base}/{}/files/{id}", version.path()),
            "state": "ACTIVE",
            "source": match self.source { Source::Uploaded => "UPLOADED", Source::Generated => "GENERATED" },
        });
        if !self.display_name.is_empty() {
            file["displayName"] = json!(self.display_name);
        }
        if self.source == Source::Generated {
            file["downloadUri"] =
                json!(format!("{base}/download/{}/files/{id}:download?alt=media", version.path()));
        }
        file
    }
}

impl State {
    /// A file that is there, for its own project only.
    pub fn file(&self, project: &str, id: &str, now: Nanos) -> Option<&StoredFile> {
        self.files.get(id).filter(|file| file.project == project && file.expires > now)
    }
}

pub fn start(app: &App, ctx: &Context) -> Answer {
    if let Some(protocol) = ctx.header("x-goog-upload-protocol")
        && !protocol.eq_ignore_ascii_case("resumable")
    {
        return Err(ApiError::rpc(
            501,
            format!("Upload protocol `{protocol}` is not emulated; use resumable."),
        ));
    }
    let body = ctx.object()?;
    let file = match field(&body, "file") {
        None => serde_json::Map::new(),
        Some(Value::Object(file)) => file.clone(),
        Some(_) => return Err(ApiError::invalid("Invalid value at 'file'")),
    };
    let text = |name: &str| field(&file, name).and_then(Value::as_str).map(str::to_owned);
    let id = match text("name") {
        Some(name) if !name.is_empty() => Some(checked_name(&name)?),
        _ => None,
    };
    let announced = ctx.header("x-goog-upload-header-content-length").and_then(|text| text.parse().ok());
    let expected: Option<u64> = announced
        .or_else(|| field(&file, "sizeBytes").and_then(int).and_then(|size| u64::try_from(size).ok()));
    if expected.is_some_and(|size| size > LIMIT as u64) {
        return Err(ApiError::invalid("File size exceeds the limit of 2147483648 bytes."));
    }
    let mime_type = text("mimeType")
        .filter(|mime| !mime.is_empty())
        .or_else(|| ctx.header("x-goog-upload-header-content-type").map(str::to_owned))
        .unwrap_or_else(|| "application/octet-stream".into());
    let now = app.now();
    let mut state = app.state();
    if let Some(id) = &id
        && state.files.get(id).is_some_and(|file| file.expires > now)
    {
        return Err(already(id));
    }
    let upload = Upload {
        project: ctx.project.clone(),
        id,
        display_name: text("displayName").unwrap_or_default(),
        mime_type,
        expected,
        chunks: Vec::new(),
        received: 0,
        finished: false,
        list_lag: ctx.list_lag.unwrap_or(0),
    };
    let upload_id = state.fresh(app.settings.seed, "upload", 40);
    let url = format!(
        "{}/upload/{}/files?upload_id={upload_id}&upload_protocol=resumable",
        ctx.base,
        ctx.version.path()
    );
    state.uploads.insert(upload_id, upload);
    Ok(Reply::new(200, "application/json; charset=UTF-8", Bytes::new())
        .header("x-goog-upload-url", url.clone())
        .header("x-goog-upload-control-url", url)
        .header("x-goog-upload-status", "active")
        .header("x-goog-upload-chunk-granularity", "8388608"))
}

/// `upload`, `finalize` or both.
pub fn chunk(app: &App, ctx: &Context) -> Answer {
    let offset: u64 = match ctx.header("x-goog-upload-offset") {
        None => 0,
        Some(text) => text.parse().map_err(|_| ApiError::invalid("Invalid X-Goog-Upload-Offset"))?,
    };
    let now = app.now();
    let mut guard = app.state();
    let state = &mut *guard;
    let upload_id = ctx.query("upload_id").unwrap_or_default();
    let Some(upload) = state.uploads.get_mut(upload_id) else { return Err(no_upload()) };
    if upload.finished {
        return Err(ApiError::invalid("Upload has already been terminated."));
    }
    if command(ctx, "upload") {
        if offset != upload.received {
            return Err(ApiError::invalid(format!(
                "Offset {offset} does not match the {} bytes that were received.",
                upload.received
            )));
        }
        if upload.received.saturating_add(ctx.body.len() as u64) > LIMIT as u64 {
            return Err(ApiError::invalid("File size exceeds the limit of 2147483648 bytes."));
        }
        upload.received += ctx.body.len() as u64;
        upload.chunks.push(ctx.body.clone());
    }
    if !command(ctx, "finalize") {
        return Ok(Reply::new(200, "application/json; charset=UTF-8", Bytes::new())
            .header("x-goog-upload-status", "active"));
    }
    let size = upload.received;
    if let Some(expected) = upload.expected
        && expected != size
    {
        return Err(ApiError::invalid(format!("{size} bytes were received, {expected} were announced.")));
    }
    let wanted = upload.id.clone();
    if let Some(id) = &wanted
        && state.files.get(id).is_some_and(|file| file.expires > now)
    {
        return Err(already(id));
    }
    upload.finished = true;
    state.files.retain(|_, file| file.expires > now);
    let bytes = joined(std::mem::take(&mut upload.chunks));
    let mut file = StoredFile::new(&upload.project, &upload.display_name, bytes, Source::Uploaded, now);
    file.mime_type.clone_from(&upload.mime_type);
    file.visible = now.saturating_add(upload.list_lag.max(ctx.list_lag.unwrap_or(0)));
    let id = wanted.unwrap_or_else(|| state.fresh(app.settings.seed, "file", 12));
    let answer = json!({ "file": file.json(&id, &ctx.base, ctx.version) });
    state.files.insert(id, file);
    Ok(Reply::ok(&answer).header("x-goog-upload-status", "final"))
}

/// One piece, without a copy where there is only one.
fn joined(mut chunks: Vec<Bytes>) -> Bytes {
    match chunks.len() {
        1 => chunks.pop().unwrap_or_default(),
        _ => chunks.concat().into(),
    }
}

pub fn query(app: &App, ctx: &Context) -> Answer {
    let state = app.state();
    let upload = state.uploads.get(ctx.query("upload_id").unwrap_or_default()).ok_or_else(no_upload)?;
    let size = upload.received;
    Ok(Reply::new(200, "application/json; charset=UTF-8", Bytes::new())
        .header("x-goog-upload-status", if upload.finished { "final" } else { "active" })
        .header("x-goog-upload-size-received", size.to_string()))
}

pub fn cancel(app: &App, ctx: &Context) -> Answer {
    let mut state = app.state();
    state.uploads.remove(ctx.query("upload_id").unwrap_or_default()).ok_or_else(no_upload)?;
    Ok(Reply::new(200, "application/json; charset=UTF-8", Bytes::new())
        .header("x-goog-upload-status", "cancelled"))
}

pub fn get(app: &App, ctx: &Context) -> Answer {
    let state = app.state();
    let file = state.file(&ctx.project, &ctx.id, app.now()).ok_or_else(|| ApiError::no_file(&ctx.id))?;
    Ok(Reply::ok(&file.json(&ctx.id, &ctx.base, ctx.version)))
}

pub fn list(app: &App, ctx: &Context) -> Answer {
    let size = ctx.page_size(["pageSize", "page_size"], 10, 100)?;
    let after = page::cursor(ctx.query("pageToken").or_else(|| ctx.query("page_token")))?;
    let now = app.now();
    let lag = ctx.list_lag.unwrap_or(0);
    let state = app.state();
    let mut files: Vec<(&String, &StoredFile)> = state
        .files
        .iter()
        .filter(|(_, file)| file.project == ctx.project && file.expires > now)
        .filter(|(_, file)| file.visible <= now && file.created.saturating_add(lag) <= now)
        .collect();
    files.sort_unstable_by(|(a_id, a), (b_id, b)| (b.created, b_id).cmp(&(a.created, a_id)));
    let (shown, next) = page::cut(files, after.as_ref(), size, |(id, file)| (file.created, (*id).clone()));
    let items: Vec<Value> = shown.iter().map(|(id, file)| file.json(id, &ctx.base, ctx.version)).collect();
    Ok(page::answer("files", items, "nextPageToken", ctx.next_page_token.clone().or(next)))
}

pub fn delete(app: &App, ctx: &Context) -> Answer {
    let now = app.now();
    let mut state = app.state();
    if state.file(&ctx.project, &ctx.id, now).is_none() {
        return Err(ApiError::no_file(&ctx.id));
    }
    state.remove_file(&ctx.id, now);
    Ok(Reply::empty_object())
}

pub fn download(app: &App, ctx: &Context) -> Answer {
    let (bytes, etag) = {
        let state = app.state();
        let file = state.file(&ctx.project, &ctx.id, app.now()).ok_or_else(|| ApiError::no_file(&ctx.id))?;
        if file.source == Source::Uploaded {
            return Err(ApiError::invalid(format!(
                "File {} was uploaded and cannot be downloaded; only generated files can.",
                ctx.id
            )));
        }
        (file.bytes.clone(), format!("\"{}\"", file.hash))
    };
    let whole = Reply::new(200, "application/octet-stream", bytes.clone())
        .header("accept-ranges", "bytes")
        .header("etag", etag.clone());
    let Some(range) = ctx.header("range") else { return Ok(whole) };
    if ctx.header("if-range").is_some_and(|known| known != etag) {
        return Ok(whole);
    }
    match parse_range(range, bytes.len()) {
        Range::Ignored => Ok(whole),
        Range::Outside => Ok(Reply::new(416, "text/plain", Bytes::new())
            .header("content-range", format!("bytes */{}", bytes.len()))),
        Range::Part(from, to) => Ok(Reply::new(206, "application/octet-stream", bytes.slice(from..to))
            .header("accept-ranges", "bytes")
            .header("etag", etag)
            .header("content-range", format!("bytes {from}-{}/{}", to - 1, bytes.len()))),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    Ignored,
    Outside,
    /// From, to (exclusive).
    Part(usize, usize),
}

/// One range of bytes; several ranges and other units are ignored, as HTTP allows.
fn parse_range(text: &str, length: usize) -> Range {
    let Some((from, to)) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Range::Ignored;
    };
    if from.is_empty() {
        let Ok(last) = to.parse::<usize>() else { return Range::Ignored };
        let last = last.min(length);
        return if last == 0 { Range::Outside } else { Range::Part(length - last, length) };
    }
    let Ok(from) = from.parse::<usize>() else { return Range::Ignored };
    let to = match to {
        "" => length,
        to => match to.parse::<usize>() {
            Ok(to) if to >= from => to.saturating_add(1).min(length),
            _ => return Range::Ignored,
        },
    };
    if from >= length { Range::Outside } else { Range::Part(from, to) }
}

fn command(ctx: &Context, word: &str) -> bool {
    ctx.header("x-goog-upload-command")
        .is_some_and(|command| command.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
}

fn no_upload() -> ApiError {
    ApiError::rpc(404, "Upload not found: the upload_id is unknown or was cancelled.")
}

fn already(id: &str) -> ApiError {
    ApiError::rpc(409, format!("File files/{id} already exists."))
}

/// `files/own-id`: up to 40 lowercase letters, digits and dashes, no dash at either end.
fn checked_name(name: &str) -> Result<String, ApiError> {
    let id = name.strip_prefix("files/").unwrap_or(name);
    let good = !id.is_empty()
        && id.len() <= 40
        && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !id.starts_with('-')
        && !id.ends_with('-');
    if good {
        Ok(id.to_owned())
    } else {
        Err(ApiError::invalid(format!(
            "Invalid file name `{name}`: the ID must be at most 40 characters of lowercase letters, digits and \
             dashes, and must not begin or end with a dash."
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(parse_range("bytes=0-3", 10), Range::Part(0, 4));
        assert_eq!(parse_range("bytes=4-", 10), Range::Part(4, 10));
        assert_eq!(parse_range("bytes=-3", 10), Range::Part(7, 10));
        assert_eq!(parse_range("bytes=-30", 10), Range::Part(0, 10));
        assert_eq!(parse_range("bytes=10-", 10), Range::Outside);
        assert_eq!(parse_range("bytes=5-2", 10), Range::Ignored);
        assert_eq!(parse_range("bytes=a-b", 10), Range::Ignored);
        assert_eq!(parse_range("lines=1-2", 10), Range::Ignored);
        assert_eq!(parse_range("bytes=0-18446744073709551615", 10), Range::Part(0, 10));
        assert_eq!(parse_range("bytes=0-", 0), Range::Outside);
    }

    #[test]
    fn names() {
        assert!(checked_name("files/my-batch-input-1").is_ok());
        assert!(checked_name(&format!("files/{}", "a".repeat(40))).is_ok());
        for bad in ["files/", "files/-a", "files/a-", "files/A", "files/a/b", &"a".repeat(41)] {
            assert!(checked_name(bad).is_err(), "{bad}");
        }
    }
}
