//! The command line, and input that nobody should send.

use std::process::Command;

use reqwest::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::Emulator;

fn refused(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_gemini-emulator")).args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    assert!(output.stdout.is_empty());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "one line for {arguments:?}: {said}");
    assert!(said.starts_with("gemini-emulator: "), "{said}");
    said
}

#[test]
fn wrong_usage_exits_with_2() {
    let plan = std::env::temp_dir().join(format!("gemini-emulator-plan-{}.json", std::process::id()));
    std::fs::write(&plan, r#"{"rules":[{"do":{"dropp":"answer"}}]}"#).unwrap();
    assert!(refused(&["serve", "--faults", plan.to_str().unwrap()]).contains("dropp"));
    for flag in ["--faults", "--webhook-ca"] {
        assert!(refused(&["serve", flag, "/nonexistent"]).contains(&format!("{flag} /nonexistent: ")));
    }
    let key = ["--tls-key", "/nonexistent"];
    assert!(refused(&[&["serve", "--tls-cert", "/nonexistent"], &key[..]].concat()).contains("--tls-cert"));
    assert!(refused(&[&["serve", "--tls-cert", "/dev/null"], &key[..]].concat()).contains("--tls-cert"));
    assert!(refused(&["serve", "--dynamic-signature", "jwt"]).contains("--jwt-key"));
    let jwt = ["serve", "--listen", "127.0.0.1:0", "--dynamic-signature", "jwt", "--jwt-key", "/nonexistent"];
    assert!(refused(&jwt).contains("--jwt-key /nonexistent: "));
    std::fs::write(&plan, r#"{"deliveries":[{"do":{"dynamic":"jwt"}}]}"#).unwrap();
    let asked = ["serve", "--listen", "127.0.0.1:0", "--faults", plan.to_str().unwrap()];
    assert!(refused(&asked).contains("--jwt-key"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert!(refused(&["serve", "--listen", &address]).contains(&format!("--listen {address}: ")));
    assert!(refused(&["serve", "--sead", "1"]).contains("'--seed'"), "it says what was meant");
    assert!(refused(&["serve", "--resolve", "nonsense"]).contains("HOST:PORT=ADDR"));
    assert!(refused(&["serve", "--job-time", "soon"]).contains("duration"));
    assert!(refused(&["serve", "--tls-cert", "/nonexistent"]).contains("--tls-key"));
    assert!(refused(&["serve", "--api-key", "=p"]).contains("--api-key"));
    assert!(refused(&[]).contains("serve"));
    std::fs::remove_file(&plan).unwrap();
}

#[tokio::test]
async fn garbage_does_not_stop_it() {
    let emulator = Emulator::start(&[]);
    let address = emulator.url.trim_start_matches("http://").to_owned();
    for raw in [
        &b"\x00\xff\xfe\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/webhooks HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"POST /v1/webhooks HTTP/1.1\r\nhost: \xff\xff\r\nx-goog-api-key: \xfe\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
    ] {
        let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
        socket.write_all(raw).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
    }
    let deep = "[".repeat(100_000);
    let paths = [
        "/v1/models/gemini-3.8-flash:batchGenerateContent",
        "/v1/models/gemini-3.8-flash:countTokens",
        "/v1/webhooks",
        "/v1/batches/x:cancel",
        "/upload/v1/files",
        "/_emulator/faults",
        "/_emulator/deliveries",
        "/_emulator/clock",
        "/_emulator/jobs/%00/finish",
        "/v1/files/..%2f..:download",
        "/v1/:::",
        "//",
    ];
    let bodies = ["", "null", "[]", "7", "\u{0}", "{\"batch\":null}", "{\"file\":[]}", "{\"uri\":{}}", &deep];
    for path in paths {
        for body in bodies {
            for method in [Method::POST, Method::GET, Method::PATCH, Method::DELETE, Method::PUT] {
                let answer =
                    emulator.request(method.clone(), path).body(body.to_owned()).send().await.unwrap();
                assert!(answer.status().as_u16() < 500, "{method} {path} {body:.20}: {}", answer.status());
            }
        }
    }
    for query in
        ["pageSize=-1", "pageSize=x", "pageToken=%00", "pageToken=8J%2BYgA", "page_size=99999999999999999999"]
    {
        for list in ["batches", "files", "models", "webhooks"] {
            assert!(emulator.get(&format!("/v1/{list}?{query}")).await.0 <= 400);
        }
    }
    assert_eq!(emulator.get("/v1/models").await.0, 200);
}
