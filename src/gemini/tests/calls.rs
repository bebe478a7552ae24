//! Reading calls and webhooks: requests as the official clients send them, errors in their class.

use futures::TryStreamExt;
use secrecy::ExposeSecret;
use serde_json::json;

use super::*;

fn rpc(code: u16, status: &str, message: &str, reason: Option<&str>) -> String {
    let details: Vec<_> = reason
        .iter()
        .map(|r| json!({ "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": r }))
        .collect();
    json!({ "error": { "code": code, "status": status, "message": message, "details": details } }).to_string()
}

async fn always(status: u16, headers: &'static [(&str, &str)], body: &str) -> Server {
    let body = body.to_owned();
    Server::start(move |_, _| reply(status, headers, &body)).await
}

#[tokio::test]
async fn every_error_has_one_class() {
    let bad_key = rpc(400, "INVALID_ARGUMENT", "API key not valid.", Some("API_KEY_INVALID"));
    let blocked_key = rpc(403, "PERMISSION_DENIED", "blocked", Some("API_KEY_SERVICE_BLOCKED"));
    let no_file =
        rpc(403, "PERMISSION_DENIED", "no permission to access the File x or it may not exist.", None);
    let limited = Class::RateLimited(None);
    let refused = rpc(400, "INVALID_ARGUMENT", "no", None);
    let unauthenticated = rpc(401, "UNAUTHENTICATED", "who", None);
    let gone = rpc(404, "NOT_FOUND", "not found", None);
    let conflict = rpc(409, "ALREADY_EXISTS", "there", None);
    let short = |code: &str| json!({ "error": { "message": "m", "code": code } }).to_string();
    let (short_refused, short_gone) = (short("invalid_request"), short("not_found"));
    // What looks like Gemini's word, and is another service's.
    let mismatch = rpc(500, "INTERNAL", "m", None);
    // Status, body, class on a batch, on a file, on creating a webhook.
    let table: [(u16, &str, Class, Class, Class); 22] = [
        (400, &bad_key, Class::Auth, Class::Auth, Class::Auth),
        (400, &refused, Class::Rejected, Class::Rejected, Class::Rejected),
        (400, &short_refused, Class::Transient, Class::Transient, Class::Rejected),
        (400, "{}", Class::Transient, Class::Transient, Class::Ambiguous),
        (401, &unauthenticated, Class::Auth, Class::Auth, Class::Auth),
        (401, "", Class::Transient, Class::Transient, Class::Ambiguous),
        (403, &no_file, Class::Auth, Class::NotFound, Class::Auth),
        (403, &blocked_key, Class::Auth, Class::Auth, Class::Auth),
        (403, "<html>", Class::Transient, Class::Transient, Class::Ambiguous),
        (404, &gone, Class::NotFound, Class::NotFound, Class::NotFound),
        (404, &short_gone, Class::Transient, Class::Transient, Class::NotFound),
        (404, "<html>", Class::Transient, Class::Transient, Class::Ambiguous),
        (404, "", Class::Transient, Class::Transient, Class::Ambiguous),
        (404, &mismatch, Class::Transient, Class::Transient, Class::Ambiguous),
        (408, "", Class::Transient, Class::Transient, Class::Ambiguous),
        (409, &conflict, Class::Rejected, Class::Rejected, Class::Ambiguous),
        (409, "", Class::Transient, Class::Transient, Class::Ambiguous),
        (413, "", Class::Transient, Class::Transient, Class::Ambiguous),
        (429, "{}", limited, limited, limited),
        (500, "", Class::Transient, Class::Transient, Class::Ambiguous),
        (503, "<html>", Class::Transient, Class::Transient, Class::Ambiguous),
        (302, "", Class::Transient, Class::Transient, Class::Ambiguous),
    ];
    for (status, body, batch, file, webhook) in table {
        let server = always(status, &[], body).await;
        let (gemini, key) = (server.client(), key());
        let results = [
            gemini.get_batch(&key, "batches/a").await.unwrap_err(),
            gemini.get_file(&key, "files/a").await.unwrap_err(),
            gemini.create_webhook(&key, "n", "https://h", &[]).await.unwrap_err(),
        ];
        assert_eq!(
            [results[0].class, results[1].class, results[2].class],
            [batch, file, webhook],
            "{status} {body}"
        );
        assert!(results.iter().all(|e| e.http_status == Some(status)));
    }
}

#[tokio::test]
async fn transport_errors_and_nonsense_are_transient_unless_something_may_have_been_created() {
    for answer in [
        || Do::Reset,
        || Do::Hang,
        || ok("<html>"),
        || Do::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}".to_vec()),
    ] {
        let server = Server::start(move |_, _| answer()).await;
        let (gemini, key) = (server.client(), key());
        assert_eq!(gemini.get_batch(&key, "batches/a").await.unwrap_err().class, Class::Transient);
        assert_eq!(gemini.get_file(&key, "files/a").await.unwrap_err().class, Class::Transient);
        let created = gemini.create_webhook(&key, "n", "https://h", &[]).await.unwrap_err();
        assert_eq!(created.class, Class::Ambiguous);
        let rotated = gemini.rotate_webhook(&key, "w", Revocation::After24h).await.unwrap_err();
        assert_eq!(rotated.class, Class::Ambiguous);
        assert_eq!(server.requests().len(), 4, "nothing is retried below us");
    }
    let nobody = client("http://127.0.0.1:1");
    assert_eq!(
        nobody.create_webhook(&key(), "n", "https://h", &[]).await.unwrap_err().class,
        Class::Transient
    );
}

#[tokio::test]
async fn rate_limits_say_how_long() {
    async fn class(retry_after: &'static [(&str, &str)]) -> Class {
        let server = always(429, retry_after, "{}").await;
        server.client().get_batch(&key(), "batches/a").await.unwrap_err().class
    }
    assert_eq!(class(&[("retry-after", "17")]).await, Class::RateLimited(Some(Duration::from_secs(17))));
    assert_eq!(class(&[("retry-after", "999999")]).await, Class::RateLimited(Some(Duration::from_hours(1))));
    assert_eq!(
        class(&[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")]).await,
        Class::RateLimited(Some(Duration::ZERO))
    );
    assert_eq!(
        class(&[("retry-after", "Tue, 21 Oct 2125 07:28:00 GMT")]).await,
        Class::RateLimited(Some(Duration::from_hours(1)))
    );
    assert_eq!(class(&[("retry-after", "soon")]).await, Class::RateLimited(None));
}

#[tokio::test]
async fn the_key_is_in_no_message_and_no_debug_output() {
    let server = always(400, &[], &rpc(400, "INVALID_ARGUMENT", &format!("key {KEY} is bad"), None)).await;
    let error = server.client().get_batch(&key(), "batches/a").await.unwrap_err();
    assert_eq!(error.message, "key <API key> is bad");
    let printed = format!("{error:?} {:?} {:?}", server.client(), key());
    assert!(!printed.contains(KEY));
    // Neither in the URL, nor is the URL in a message.
    assert!(!server.request(0).target.contains(KEY));
    let error = client("http://127.0.0.1:1").list_files(&key(), Some("tok")).await.unwrap_err();
    assert!(!error.message.contains("127.0.0.1:1/"), "{}", error.message);
}

#[tokio::test]
async fn names_that_are_none_are_not_sent() {
    let server = always(200, &[], "{}").await;
    let (gemini, key) = (server.client(), key());
    assert_eq!(gemini.get_batch(&key, "batches/a/../b").await.unwrap_err().class, Class::Rejected);
    assert_eq!(gemini.cancel_batch(&key, "files/a").await.unwrap_err().class, Class::Rejected);
    assert_eq!(gemini.get_file(&key, "files/").await.unwrap_err().class, Class::Rejected);
    assert_eq!(gemini.download(&key, "files/a?b").await.unwrap_err().class, Class::Rejected);
    assert_eq!(gemini.get_webhook(&key, "a/b").await.unwrap_err().class, Class::Rejected);
    assert_eq!(gemini.get_model(&key, "a/b").await.unwrap_err().class, Class::Rejected);
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn paths_and_methods() {
    let server = Server::start(|_, seen| match seen.target.as_str() {
        "/v1beta/models/m1" => {
            ok(r#"{"name":"models/m1","inputTokenLimit":1048576,"outputTokenLimit":"65536",
            "supportedGenerationMethods":["generateContent","batchGenerateContent"]}"#)
        }
        _ => ok("{}"),
    })
    .await;
    let (gemini, key) = (server.client(), key());
    gemini.cancel_batch(&key, "batches/a").await.unwrap();
    gemini.delete_batch(&key, "batches/a").await.unwrap();
    gemini.delete_file(&key, "files/a").await.unwrap();
    gemini.ping_webhook(&key, "w1").await.unwrap();
    gemini.delete_webhook(&key, "w1").await.unwrap();
    let model = gemini.get_model(&key, "models/m1").await.unwrap();
    assert_eq!((model.input_token_limit, model.output_token_limit), (Some(1_048_576), Some(65_536)));
    assert_eq!(model.methods, ["generateContent", "batchGenerateContent"]);
    assert_eq!(gemini.list_batches(&key).await.unwrap(), BatchListing::default());
    assert_eq!(gemini.list_files(&key, Some("a b&c")).await.unwrap(), FilePage::default());
    assert_eq!(gemini.list_webhooks(&key).await.unwrap(), []);
    let seen: Vec<String> = server.requests().iter().map(|r| format!("{} {}", r.method, r.target)).collect();
    assert_eq!(
        seen,
        [
            "POST /v1beta/batches/a:cancel",
            "DELETE /v1beta/batches/a",
            "DELETE /v1beta/files/a",
            "POST /v1beta/webhooks/w1:ping",
            "DELETE /v1beta/webhooks/w1",
            "GET /v1beta/models/m1",
            "GET /v1beta/batches?pageSize=100",
            "GET /v1beta/files?pageSize=100&pageToken=a+b%26c",
            "GET /v1beta/webhooks?page_size=1000",
        ]
    );
    assert!(server.requests().iter().all(|r| r.header("x-goog-api-key") == KEY));
}

#[tokio::test]
async fn a_listing_tells_what_it_could_not_read() {
    let first = r#"{"operations":[{"name":"batches/a","metadata":{"state":"BATCH_STATE_RUNNING"}},{"name":"?"},7],
                   "nextPageToken":"t 2"}"#;
    let second = r#"{"operations":[{"name":"batches/b"},{}]}"#;
    let server = Server::start(|n, _| if n == 0 { ok(first) } else { ok(second) }).await;
    let all = server.client().list_batches(&key()).await.unwrap();
    assert_eq!(all.batches.iter().map(|b| b.name.as_str()).collect::<Vec<_>>(), ["batches/a", "batches/b"]);
    assert_eq!(all.unreadable, 3);
    assert_eq!(server.request(1).target, "/v1beta/batches?pageSize=100&pageToken=t+2");
}

#[tokio::test]
async fn a_look_at_young_jobs_does_not_read_the_old_ones() {
    let page = |created: &[&str]| {
        let entry = |at: &&str| {
            format!(r#"{{"name":"batches/a","metadata":{{"createTime":"2026-01-{at}T00:00:00Z"}}}}"#)
        };
        let entries: Vec<String> = created.iter().map(entry).collect();
        format!(r#"{{"operations":[{}],"nextPageToken":"t"}}"#, entries.join(","))
    };
    let from = "2026-01-05T00:00:00Z".parse().unwrap();
    // Days of the jobs on each page; the calls that are made, the fourth page being the last.
    for (pages, calls) in [
        ([&["09", "04"][..], &["04", "03"], &["02"]], 2),
        ([&["04"], &["09"], &["09"]], 1),
        ([&["09"], &["05"], &["04"]], 3),
        ([&["09"], &["09"], &["09"]], 4),
        // Nothing is said there, so nothing is known.
        ([&[], &["no date", "04"], &["04"]], 3),
    ] {
        let answers = pages.map(page);
        let server = Server::start(move |n, _| ok(answers.get(n).map_or("{}", String::as_str))).await;
        let listing = server.client().list_batches_since(&key(), Some(from)).await.unwrap();
        assert_eq!(server.requests().len(), calls, "{pages:?}");
        assert_eq!(listing.reaches, (calls < 4).then_some(from), "{pages:?}");
    }
}

/// Jobs with inline answers of other people in the project make pages of any size.
#[tokio::test]
async fn a_page_that_is_too_large_is_asked_for_in_smaller_ones() {
    let too_large = "HTTP/1.1 200 OK\r\ncontent-length: 68000000\r\nconnection: close\r\n\r\n{";
    let size_in = |seen: &Seen| seen.target.split(['=', '&']).nth(1).and_then(|n| n.parse::<u32>().ok());
    let server = Server::start(move |_, seen| match (size_in(seen), seen.target.contains("pageToken")) {
        (Some(100 | 10), false) => Do::Send(too_large.into()),
        (_, false) => ok(r#"{"operations":[{"name":"batches/a"}],"nextPageToken":"t2"}"#),
        (_, true) => ok(r#"{"operations":[{"name":"batches/b"}]}"#),
    })
    .await;
    let all = server.client().list_batches(&key()).await.unwrap();
    assert_eq!((all.batches.len(), all.unreadable), (2, 0));
    let seen: Vec<_> = server.requests().iter().map(|seen| size_in(seen).unwrap()).collect();
    assert_eq!(seen, [100, 10, 3, 3]);

    let server = Server::start(move |_, _| Do::Send(too_large.into())).await;
    let error = server.client().list_batches(&key()).await.unwrap_err();
    assert_eq!((error.class, error.is_too_large, server.requests().len()), (Class::Transient, true, 4));
}

#[tokio::test]
async fn a_job_under_another_name_is_no_answer() {
    let server = always(200, &[], r#"{"name":"batches/b"}"#).await;
    assert_eq!(server.client().get_batch(&key(), "batches/a").await.unwrap_err().class, Class::Transient);
}

#[tokio::test]
async fn files_are_read_with_either_encoding_of_their_digest() {
    let full = "ab".repeat(32);
    let raw = data_encoding::HEXLOWER.decode(full.as_bytes()).unwrap();
    for encoded in [data_encoding::BASE64.encode(full.as_bytes()), data_encoding::BASE64.encode(&raw)] {
        let body = json!({ "name": "files/a", "sizeBytes": "120", "sha256Hash": encoded, "state": "ACTIVE",
                           "expirationTime": "2026-08-22T20:00:00.111111Z" });
        let server = always(200, &[], &body.to_string()).await;
        let file = server.client().get_file(&key(), "files/a").await.unwrap();
        assert_eq!(
            (file.sha256.as_deref(), file.size_bytes, file.state),
            (Some(full.as_str()), Some(120), FileState::Active)
        );
        assert!(file.expiration_time.is_some());
    }
}

async fn bytes(download: Download) -> Result<Vec<u8>, Error> {
    download.stream.map_ok(|chunk| chunk.to_vec()).try_concat().await
}

#[tokio::test]
async fn downloads_stream_and_know_when_they_were_cut() {
    let server = always(200, &[], "line 1\nline 2\n").await;
    let download = server.client().download(&key(), "files/batch-a").await.unwrap();
    assert_eq!(download.length, Some(14));
    assert_eq!(bytes(download).await.unwrap(), b"line 1\nline 2\n");
    assert_eq!(server.request(0).target, "/v1beta/files/batch-a:download?alt=media");

    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\nline 1\nli";
    let server = Server::start(move |_, _| Do::Send(cut.into())).await;
    let download = server.client().download(&key(), "files/batch-a").await.unwrap();
    assert_eq!(bytes(download).await.unwrap_err().class, Class::Transient);
}

#[tokio::test]
async fn a_download_falls_back_to_the_other_path_on_404_only() {
    let server = Server::start(|_, seen| {
        if seen.target.starts_with("/download/v1beta/files/a:download?alt=media") {
            ok("x")
        } else {
            reply(404, &[], "")
        }
    })
    .await;
    assert_eq!(bytes(server.client().download(&key(), "files/a").await.unwrap()).await.unwrap(), b"x");
    assert_eq!(server.requests().len(), 2);

    let server = always(403, &[], &rpc(403, "PERMISSION_DENIED", "it may not exist.", None)).await;
    let gone = server.client().download(&key(), "files/a").await.unwrap_err();
    assert_eq!((gone.class, gone.http_status, server.requests().len()), (Class::NotFound, Some(403), 1));
}

#[tokio::test]
async fn a_file_is_gone_only_by_the_word_of_the_api() {
    // The path that is served says that the file is gone, the other one is not known to anybody; or neither is.
    let page = "<!DOCTYPE html>";
    for (served, class) in
        [(Some("/v1beta"), Class::NotFound), (Some("/download"), Class::NotFound), (None, Class::Transient)]
    {
        let server = Server::start(move |_, seen| {
            let is_served = served.is_some_and(|prefix| seen.target.starts_with(prefix));
            reply(404, &[], if is_served { GONE } else { page })
        })
        .await;
        assert_eq!(server.client().download(&key(), "files/a").await.unwrap_err().class, class, "{served:?}");
        assert_eq!(server.requests().len(), 2);
    }
    let server = always(403, &[], page).await;
    assert_eq!(server.client().download(&key(), "files/a").await.unwrap_err().class, Class::Transient);
    assert_eq!(server.client().delete_file(&key(), "files/a").await.unwrap_err().class, Class::Transient);
}

const GONE: &str =
    r#"{"error":{"code":404,"message":"Requested entity was not found.","status":"NOT_FOUND"}}"#;

const HOOK: &str = r#"{"id":"k0h9","name":"n","uri":"https://h/p","subscribed_events":["batch.succeeded"],
  "state":"disabled_due_to_failed_deliveries","signing_secrets":[{"truncated_secret":"whsec_...3frh","expire_time":"2026-08-22T20:00:00Z"}]}"#;

#[tokio::test]
async fn creating_a_webhook_hands_out_its_secret_and_nobody_else_sees_it() {
    let created = r#"{"id":"k0h9","new_signing_secret":"whsec_abc"}"#;
    let server = always(200, &[], created).await;
    let events = ["batch.succeeded".to_owned()];
    let hook = server.client().create_webhook(&key(), "n", "https://h/p", &events).await.unwrap();
    assert_eq!((hook.webhook.id.as_str(), hook.signing_secret.expose_secret()), ("k0h9", "whsec_abc"));
    assert!(!format!("{hook:?}").contains("whsec_abc"));
    let seen = server.request(0);
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/v1beta/webhooks"));
    assert_eq!(
        seen.json(),
        json!({ "name": "n", "uri": "https://h/p", "subscribed_events": ["batch.succeeded"] })
    );

    for lacking in [
        r#"{"id":"k0h9"}"#,
        r#"{"new_signing_secret":"whsec_abc"}"#,
        r#"{"id":"k0h9","new_signing_secret":["whsec_abc"]}"#,
    ] {
        let server = always(200, &[], lacking).await;
        let error = server.client().create_webhook(&key(), "n", "https://h", &[]).await.unwrap_err();
        assert_eq!(error.class, Class::Ambiguous);
        assert!(!error.message.contains("whsec"), "{}", error.message);
    }
}

#[tokio::test]
async fn webhooks_are_listed_over_all_pages() {
    let first = format!(r#"{{"webhooks":[{HOOK},{{"no":"id"}}],"next_page_token":"tok-2"}}"#);
    let server =
        Server::start(move |n, _| if n == 0 { ok(&first) } else { ok(r#"{"webhooks":[{"id":"b"}]}"#) }).await;
    let hooks = server.client().list_webhooks(&key()).await.unwrap();
    assert_eq!(hooks.iter().map(|h| h.id.as_str()).collect::<Vec<_>>(), ["k0h9", "b"]);
    assert_eq!(hooks[0].state, WebhookState::DisabledDueToFailedDeliveries);
    assert!(hooks[0].signing_secrets[0].expire_time.is_some());
    assert_eq!(server.request(1).target, "/v1beta/webhooks?page_size=1000&page_token=tok-2");
}

#[tokio::test]
async fn the_webhook_service_speaks_in_a_form_of_its_own() {
    for (status, body, class) in [
        (404, r#"{"error":{"message":"no such webhook","code":"not_found"}}"#, Class::NotFound),
        (400, r#"{"error":{"message":"Unknown parameter","code":"invalid_request"}}"#, Class::Rejected),
        (404, "<html>", Class::Transient),
    ] {
        let server = always(status, &[], body).await;
        let (gemini, key) = (server.client(), key());
        assert_eq!(gemini.get_webhook(&key, "k0h9").await.unwrap_err().class, class, "{body}");
        assert_eq!(gemini.delete_webhook(&key, "k0h9").await.unwrap_err().class, class, "{body}");
    }
}

#[tokio::test]
async fn a_change_sends_what_changes_and_nothing_else() {
    let server = always(200, &[], HOOK).await;
    let change =
        WebhookChange { uri: Some("https://new".into()), enabled: Some(true), ..WebhookChange::default() };
    server.client().update_webhook(&key(), "k0h9", &change).await.unwrap();
    let seen = server.request(0);
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str()),
        ("PATCH", "/v1beta/webhooks/k0h9?update_mask=state%2Curi")
    );
    assert_eq!(seen.json(), json!({ "uri": "https://new", "state": "enabled" }));
}

#[tokio::test]
async fn a_rotation_says_what_happens_to_the_old_secret() {
    let server = always(200, &[], r#"{"secret":"whsec_new"}"#).await;
    for (revocation, word) in [
        (Revocation::After24h, "revoke_previous_secrets_after_h24"),
        (Revocation::Immediately, "revoke_previous_secrets_immediately"),
    ] {
        let secret = server.client().rotate_webhook(&key(), "k0h9", revocation).await.unwrap();
        assert_eq!(secret.expose_secret(), "whsec_new");
        let seen = server.requests().pop().unwrap();
        assert_eq!(seen.target, "/v1beta/webhooks/k0h9:rotateSigningSecret");
        assert_eq!(seen.json(), json!({ "revocation_behavior": word }));
    }
}
