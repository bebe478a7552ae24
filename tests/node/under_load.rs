//! What happens to a cluster's operator in its life, with 50 deliveries a second coming in from outside: none of them is
//! lost for good, and every batch is complete and paid for once.

use std::collections::BTreeSet;

use gemini_operator::api::condition::{self, webhook_type};
use gemini_operator::api::{GeminiWebhook, ROTATE_AT_ANNOTATION};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;

use crate::installation::{rolled_out, upgrade};
use crate::load::{Load, RATE, Size};
use crate::stay::{Stay, wait_for_processes};
use crate::support::{OPERATOR_NAMESPACE, PATIENCE, poll};

/// So many deliveries come in before, between and after what happens.
const CALM: usize = RATE;

fn names(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter().map(ResourceExt::name_any).collect()
}

/// How often its container was started again, if it is ready.
fn restarts_of_ready(pod: &Pod) -> Option<i32> {
    let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    status.ready.then_some(status.restart_count)
}

/// Waits until two receivers are ready, and as they should be.
async fn two_receivers(stay: &Stay, what: &str, good: impl Fn(&[Pod]) -> bool) {
    let seen = poll(PATIENCE, async || {
        let pods = stay.pods("receiver").await;
        let ready = pods.iter().filter_map(restarts_of_ready).count();
        if ready == 2 && pods.len() == 2 && good(&pods) { Ok(()) } else { Err(names(&pods)) }
    });
    if let Err(pods) = seen.await {
        panic!("not two receivers {what}: {pods:?}\n{}", stay.log_tails());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside of the node bed: make e2e-node"]
async fn receivers_killed_under_load_lose_no_event() {
    let size = Size::chosen();
    let stay = Stay::new("killed", &size.faults()).await;
    let load = Load::prepare(&stay, size).await;
    load.during(false, async {
        load.goes_on(CALM).await;
        // As a crash or the kernel does it: nobody was told, and deliveries are sent there until a probe has failed.
        let before: i32 = stay.pods("receiver").await.iter().filter_map(restarts_of_ready).sum();
        let victim = wait_for_processes("receiver", 2).await.remove(0);
        let pid = victim.file_name().and_then(|pid| pid.to_str()).expect("a process has a number");
        let killed = std::process::Command::new("sh").args(["-c", "kill -s KILL \"$0\"", pid]).status();
        assert!(killed.is_ok_and(|status| status.success()), "kill {pid}");
        two_receivers(&stay, "after a crash", |pods| {
            pods.iter().filter_map(restarts_of_ready).sum::<i32>() == before + 1
        })
        .await;
        load.goes_on(CALM).await;

        // As a person does it: gone from the API at once, and from the node as soon as the kubelet hears of it.
        let gone = stay.pods("receiver").await.remove(0).name_any();
        let kubectl = stay.cluster.kubectl(OPERATOR_NAMESPACE);
        kubectl.run(&["delete", "pod", &gone, "--force", "--grace-period=0"]).await.expect();
        two_receivers(&stay, "after a deletion", |pods| !names(pods).contains(&gone)).await;
        load.goes_on(CALM).await;
    })
    .await;
    let failures = load.failures();
    assert!(!failures.is_empty(), "nothing was sent to the one that had crashed");
    load.assert_nothing_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside of the node bed: make e2e-node"]
async fn an_upgrade_under_load_loses_no_event() {
    let size = Size::chosen();
    let stay = Stay::new("upgraded", &size.faults()).await;
    let load = Load::prepare(&stay, size).await;
    let everyone = async || names(&[stay.pods("controller").await, stay.pods("receiver").await].concat());
    let before = everyone().await;
    load.during(true, async {
        load.goes_on(CALM).await;
        let version = next_version();
        upgrade(stay.cluster, &[&format!("image.tag={version}")]).await;
        if let Err(problem) = rolled_out(stay.cluster).await {
            panic!("the upgrade does not end: {problem}");
        }
        // Also those of the old version that nobody counts any more, and that still answer.
        wait_for_processes("receiver", 2).await;
        wait_for_processes("controller", 1).await;
        let pods = [stay.pods("controller").await, stay.pods("receiver").await].concat();
        let image = format!("localhost/gemini-operator:{version}");
        let image_of = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.containers[0].image.clone());
        assert!(pods.iter().all(|pod| image_of(pod).as_deref() == Some(&image)), "{pods:#?}");
        assert!(names(&pods).is_disjoint(&before), "all of them are new");
        load.goes_on(CALM).await;
    })
    .await;
    // A pod ends when nobody sends to it any more, and what it has got it answers. 503 is an answer: come again.
    let failures = load.failures();
    assert_eq!(failures.keys().find(|answer| *answer != "503"), None, "{failures:?}");
    load.assert_nothing_lost().await;
}

/// The same image by another name: to the kubelet that is another version.
fn next_version() -> String {
    let output = std::process::Command::new("ctr").args(["images", "list", "--quiet"]).output();
    let output = output.expect("the bed has ctr on PATH");
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let image = listed.lines().find(|name| name.starts_with("localhost/gemini-operator:"));
    let image = image.expect("the bed has the operator's image");
    let version = format!("upgraded-{}", listed.matches("upgraded-").count());
    let tag = ["images", "tag", image, &format!("localhost/gemini-operator:{version}")];
    let tagged = std::process::Command::new("ctr").args(tag).output().expect("ctr runs");
    assert!(tagged.status.success(), "{}", String::from_utf8_lossy(&tagged.stderr));
    version
}

/// Has the signing secret replaced, and waits until a ping that was signed with the new one has arrived.
async fn rotate(stay: &Stay) {
    // The secret must be older than the wish, in whole seconds, or it will do.
    let older = poll(PATIENCE, async || {
        let now = Timestamp::now();
        let born = stay.webhooks().get("main").await.unwrap().status.unwrap();
        let born = born.last_rotation_time.or(born.registered_time).unwrap().0;
        if now.as_second() > born.as_second() { Ok(now) } else { Err(now) }
    });
    let at = older.await.expect("the secret gets older");
    let annotation = format!("{ROTATE_AT_ANNOTATION}={at}");
    stay.kubectl().run(&["annotate", "--overwrite", "geminiwebhook", "main", &annotation]).await.expect();
    let done = |webhook: &GeminiWebhook| {
        let Some(status) = &webhook.status else { return false };
        let rotated = status.last_rotation_time.as_ref().is_some_and(|t| t.0.as_second() >= at.as_second());
        let tested = status.last_ping.as_ref().is_some_and(|ping| ping.received_time.is_some());
        rotated && tested && condition::is_true(&status.conditions, webhook_type::READY)
    };
    stay.wait_webhook("main", "rotated and tested", done).await;
}

/// Authentic deliveries, by each receiver's own count.
async fn taken_by_each_receiver(stay: &Stay) -> Vec<f64> {
    let http = reqwest::Client::builder().no_proxy().build().expect("a client can be made");
    let mut taken = Vec::new();
    for pod in stay.pods("receiver").await {
        let address = pod.status.and_then(|status| status.pod_ip).expect("a pod has an address");
        let answer = http.get(format!("http://{address}:8080/metrics")).send().await;
        let text = answer.expect("metrics are served").text().await.expect("metrics are text");
        let lines =
            text.lines().filter(|line| line.starts_with("gemini_operator_receiver_deliveries_total{"));
        let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        taken.push(values.sum());
    }
    taken
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside of the node bed: make e2e-node"]
async fn a_rotated_signing_secret_loses_no_event() {
    let size = Size::chosen();
    // The controller hears of the last new secret late, while the emulator signs with nothing else.
    let slow = json!({"match": {"call": "webhooks.rotate", "nth": [5]}, "do": {"answer_delay_ms": 1_500}});
    let mut faults = size.faults();
    faults["rules"] = json!([slow]);
    let stay = Stay::new("rotated", &faults).await;
    let load = Load::prepare(&stay, size).await;
    load.during(false, async {
        load.goes_on(CALM).await;
        // After24h: both secrets are good, and Gemini signs with both.
        for _ in 0..2 {
            rotate(&stay).await;
            load.goes_on(CALM).await;
        }
        let failures = load.failures();
        assert!(!failures.contains_key("401"), "the old secret is good for a day: {failures:?}");

        // Immediately: what is signed before every receiver has the new one is refused, and comes again.
        let patch = json!({"spec": {"rotation": {"revocation": "Immediately"}}}).to_string();
        let patch = ["patch", "geminiwebhook", "main", "--type=merge", "-p", &patch];
        stay.kubectl().run(&patch).await.expect();
        for _ in 0..3 {
            rotate(&stay).await;
            load.goes_on(CALM).await;
        }
    })
    .await;
    assert_eq!(stay.ledger().await.executed("webhooks.rotate"), 5);
    let failures = load.failures();
    assert!(failures.contains_key("401"), "until both receivers have the new secret: {failures:?}");
    assert_eq!(
        failures.keys().find(|answer| !["401", "503"].contains(&answer.as_str())),
        None,
        "{failures:?}"
    );
    load.assert_nothing_lost().await;
    // The Service spreads what comes in.
    let taken = taken_by_each_receiver(&stay).await;
    assert!(taken.len() == 2 && taken.iter().all(|taken| *taken > 0.0), "{taken:?}");
}
