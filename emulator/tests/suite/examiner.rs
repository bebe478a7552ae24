//! Google's own SDK and the Standard Webhooks library judge the emulator: `tests/examiner.py` in the repository's
//! Python environment. A missing environment is a failure, never a silent skip.

use std::path::{Path, PathBuf};
use std::process::Command;

use data_encoding::BASE64URL_NOPAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde_json::{Value, json};

use crate::support::{Emulator, Endpoint, jsonl};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The interpreter of the environment that `testenv/venv.sh` makes.
fn python() -> PathBuf {
    let script = root().join("testenv/venv.sh");
    let made = Command::new("bash").arg(&script).output().unwrap();
    assert!(
        made.status.success(),
        "{} must print the folder of an environment with google-genai==3.4.0 and standardwebhooks: {}",
        script.display(),
        String::from_utf8_lossy(&made.stderr)
    );
    Path::new(String::from_utf8(made.stdout).unwrap().trim()).join("bin/python")
}

#[test]
fn googles_sdk_and_standardwebhooks_agree() {
    let arguments = [
        "--job-time",
        "300ms",
        "--allow-http-webhooks",
        "--api-key",
        "TEST_API_KEY=one",
        "--api-key",
        "EMPTY=two",
    ];
    let emulator = Emulator::start(&arguments);
    let judged = Command::new(python())
        .arg(root().join("emulator/tests/examiner.py"))
        .arg(&emulator.url)
        .env_remove("GOOGLE_API_KEY")
        .env_remove("GEMINI_API_KEY")
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&judged.stdout), String::from_utf8_lossy(&judged.stderr));
    assert!(judged.status.success(), "{said}");
    assert!(said.contains("examiner: all good"), "{said}");
}

/// The documented form of dynamic deliveries; the RSA key is made by Python, since ring makes none.
#[tokio::test]
async fn dynamic_deliveries_may_be_signed_by_jwt() {
    let program = "from cryptography.hazmat.primitives.asymmetric import rsa\n\
                from cryptography.hazmat.primitives.serialization import *\n\
                key = rsa.generate_private_key(65537, 2048)\n\
                print(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())";
    let made = Command::new(python()).args(["-c", program]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let file = std::env::temp_dir().join(format!("gemini-emulator-jwt-{}.pem", std::process::id()));
    std::fs::write(&file, &made.stdout).unwrap();
    let key = file.to_str().unwrap();
    let arguments =
        ["--job-time", "0", "--allow-http-webhooks", "--dynamic-signature", "jwt", "--jwt-key", key];
    let emulator = Emulator::start(&arguments);
    std::fs::remove_file(&file).unwrap();
    let endpoint = Endpoint::start().await;
    assert_eq!(emulator.upload("files/in", &jsonl(&["a"])).await.0, 200);
    let hook = json!({"uris": [endpoint.url()]});
    let batch = json!({"batch": {"inputConfig": {"fileName": "files/in"}, "webhookConfig": hook}});
    emulator.post("/v1/models/gemini-3.8-flash:batchGenerateContent", batch).await;
    let received = endpoint.wait(1).await;
    let token = received[0].header("webhook-signature");
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let parts: Vec<Value> = signed
        .split('.')
        .map(|part| serde_json::from_slice(&BASE64URL_NOPAD.decode(part.as_bytes()).unwrap()).unwrap())
        .collect();
    assert_eq!(parts[1]["aud"], endpoint.url());
    assert!(parts[1]["exp"].as_i64().unwrap() > gemini_emulator::clock::real() / 1_000_000_000);
    let (_, set) = emulator.get("/.well-known/jwks.json").await;
    let key = set["keys"].as_array().unwrap().iter().find(|key| key["kid"] == parts[0]["kid"]).unwrap();
    let number = |name: &str| BASE64URL_NOPAD.decode(key[name].as_str().unwrap().as_bytes()).unwrap();
    let public = RsaPublicKeyComponents { n: number("n"), e: number("e") };
    let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
    public.verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature).unwrap();
}
