//! Google's own SDK and the Standard Webhooks library judge the emulator: `tests/examiner.py` in the repository's
//! Python environment. A missing environment is a failure, never a silent skip.

use std::path::{Path, PathBuf};
use std::process::Command;

use data_encoding::BASE64URL_NOPAD;
use reqwest::Method;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde_json::{Value, json};

use crate::support::{Emulator, Endpoint, Received, jsonl};

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

/// PEM files of two RSA keys, made by Python, since ring makes none.
fn rsa_keys() -> [String; 2] {
    let program = "import sys\n\
                from cryptography.hazmat.primitives.asymmetric import rsa\n\
                from cryptography.hazmat.primitives.serialization import *\n\
                for path in sys.argv[1:]:\n    \
                    key = rsa.generate_private_key(65537, 2048)\n    \
                    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())\n    \
                    open(path, 'wb').write(pem)";
    let file = |name| std::env::temp_dir().join(format!("gemini-emulator-{name}-{}.pem", std::process::id()));
    let files = ["first", "second"].map(|name| file(name).to_str().unwrap().to_owned());
    let made = Command::new(python()).args(["-c", program]).args(&files).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    files
}

/// Header and claims of a delivery's token.
fn token(delivery: &Received) -> [Value; 2] {
    let mut parts = delivery.header("webhook-signature").split('.').map(|part| {
        serde_json::from_slice(&BASE64URL_NOPAD.decode(part.as_bytes()).unwrap()).unwrap_or(Value::Null)
    });
    [parts.next().unwrap(), parts.next().unwrap()]
}

/// Whether its token was signed by a key of this document.
fn signed_by(set: &Value, delivery: &Received) -> bool {
    let (signed, signature) = delivery.header("webhook-signature").rsplit_once('.').unwrap();
    let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
    let [header, _] = token(delivery);
    let mut keys = of_kind(set, "RSA").into_iter().filter(|key| key["kid"] == header["kid"]);
    keys.any(|key| {
        let number = |name: &str| BASE64URL_NOPAD.decode(key[name].as_str().unwrap().as_bytes()).unwrap();
        let public = RsaPublicKeyComponents { n: number("n"), e: number("e") };
        public.verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature).is_ok()
    })
}

fn of_kind(set: &Value, kty: &str) -> Vec<Value> {
    set["keys"].as_array().unwrap().iter().filter(|key| key["kty"] == kty).cloned().collect()
}

/// The documented form of dynamic deliveries, and their keys' change.
#[tokio::test]
async fn dynamic_deliveries_may_be_signed_by_jwt() {
    let keys = rsa_keys();
    let mut arguments = vec!["--job-time", "0", "--allow-http-webhooks", "--dynamic-signature", "jwt"];
    arguments.extend(keys.iter().flat_map(|key| ["--jwt-key", key]));
    let emulator = Emulator::start(&arguments);
    for key in &keys {
        std::fs::remove_file(key).unwrap();
    }
    let endpoint = Endpoint::start().await;
    assert_eq!(emulator.upload("files/in", &jsonl(&["a"])).await.0, 200);
    // Of a job after this one: what the endpoint got for it, and the document as it was then.
    let next = || async {
        let before = endpoint.received().len();
        let hook = json!({"uris": [endpoint.url()]});
        let batch = json!({"batch": {"inputConfig": {"fileName": "files/in"}, "webhookConfig": hook}});
        emulator.post("/v1/models/gemini-3.8-flash:batchGenerateContent", batch).await;
        let delivery = endpoint.wait(before + 1).await.swap_remove(before);
        (delivery, emulator.get("/.well-known/jwks.json").await.1)
    };
    let (delivery, first) = next().await;
    let [_, claims] = token(&delivery);
    assert_eq!(claims["aud"], endpoint.url());
    assert!(claims["exp"].as_i64().unwrap() > gemini_emulator::clock::real() / 1_000_000_000);
    assert!(signed_by(&first, &delivery));

    let rotated = emulator.admin(Method::POST, "jwks/rotate", json!({})).await;
    let (delivery, second) = next().await;
    assert_eq!(rotated, second);
    assert!(signed_by(&second, &delivery) && !signed_by(&first, &delivery));
    let (old, new) = (of_kind(&first, "RSA"), of_kind(&second, "RSA"));
    assert_eq!((old.len(), new.len()), (1, 1));
    assert!(old[0]["kid"] != new[0]["kid"] && old[0]["n"] != new[0]["n"], "{old:?} {new:?}");
    assert_eq!(of_kind(&first, "OKP"), of_kind(&second, "OKP"));

    emulator.faults(json!({"deliveries": [{"do": {"forge": "retired"}}]})).await;
    let (delivery, _) = next().await;
    assert!(signed_by(&first, &delivery) && !signed_by(&second, &delivery));
    emulator.faults(json!({"deliveries": [{"do": {"dynamic": "v1a"}}]})).await;
    let (delivery, _) = next().await;
    assert!(delivery.header("webhook-signature").starts_with("v1a,"));

    let rotate = |wish: Value| emulator.call(Method::POST, "/_emulator/jwks/rotate", Some(wish));
    for (wish, said) in [(json!({}), "--jwt-key"), (json!({"signature": "v2"}), "v2")] {
        let (status, answer) = rotate(wish).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(said), "{answer}");
    }
    assert_eq!(emulator.get("/.well-known/jwks.json").await.1, second);
    let (_, third) = rotate(json!({"signature": "v1a"})).await;
    assert_eq!(of_kind(&third, "RSA"), new);
    assert_ne!(of_kind(&third, "OKP"), of_kind(&second, "OKP"));
}
