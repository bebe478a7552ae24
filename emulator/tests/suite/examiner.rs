//! Google's own SDK and the Standard Webhooks library judge the emulator: `tests/examiner.py` in the repository's
//! Python environment. A missing environment is a failure, never a silent skip.

use std::path::Path;
use std::process::Command;

use crate::support::Emulator;

#[test]
fn googles_sdk_and_standardwebhooks_agree() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let script = root.join("testenv/venv.sh");
    let made = Command::new("bash").arg(&script).output().unwrap();
    assert!(
        made.status.success(),
        "{} must print the folder of an environment with google-genai==3.4.0 and standardwebhooks: {}",
        script.display(),
        String::from_utf8_lossy(&made.stderr)
    );
    let folder = String::from_utf8(made.stdout).unwrap();
    let python = Path::new(folder.trim()).join("bin/python");
    let arguments = [
        "--job-time",
        "300ms",
        "--allow-http-webhooks",
        "--retry-scale",
        "50",
        "--api-key",
        "TEST_API_KEY=one",
        "--api-key",
        "EMPTY=two",
    ];
    let emulator = Emulator::start(&arguments);
    let judged = Command::new(python)
        .arg(root.join("emulator/tests/examiner.py"))
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
