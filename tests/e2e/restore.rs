//! etcd goes back to an older state, as when a backup is restored: what was paid for since then is found again.

use std::fs;
use std::path::Path;

use gemini_operator_checker::Bounds;
use serde_json::json;

use crate::objects::tickets;
use crate::support::cluster::cluster;
use crate::support::{Bed, BedOptions, Cluster};

/// A control plane of its own, since everything on it goes back.
async fn own_cluster() -> &'static Cluster {
    // The path of etcd's socket in there has to be short.
    let dir = cluster().await.dir.join("r");
    Box::leak(Box::new(Cluster::start_in(dir).await.expect("a control plane of its own")))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

async fn edit(bed: &Bed, name: &str, spec: &str) {
    let patch = format!(r#"{{"spec": {spec}}}"#);
    bed.kubectl().run(&["patch", "geminibatch", name, "--type=merge", "-p", &patch]).await.expect();
}

async fn wait_submitted(bed: &Bed, name: &str) -> String {
    let batch = bed.wait_condition(name, "Submitted", "True", "Submitted").await;
    batch.status.unwrap().runs[0].remote_name.clone().unwrap()
}

/// Four batches that the backup caught at different moments; after it, each gets its job.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_pays_for_nothing_again() {
    let options = BedOptions {
        timing_divisor: 300,
        faults: Some(json!({
            "rules": [{"match": {"call": "batches.create", "nth": [2]}, "do": {"hold": "request"}}],
            "jobs": [{"do": {"hold": "pending"}}],
        })),
        ..BedOptions::default()
    };
    let cluster = own_cluster().await;
    let mut bed = Bed::on(cluster, "restore", options).await;
    let mut suspended: serde_json::Value = serde_json::from_str(&tickets("suspended", 2, "None")).unwrap();
    suspended["spec"]["suspend"] = true.into();
    bed.apply(&suspended.to_string()).await;
    bed.wait_condition("suspended", "Suspended", "True", "SuspendedByUser").await;
    bed.apply(&tickets("keyless", 2, "None")).await;
    bed.wait_condition("keyless", "Admitted", "False", "CredentialsNotFound").await;
    edit(&bed, "keyless", r#"{"suspend": true}"#).await;
    bed.make_api_key().await;
    bed.apply(&tickets("recorded", 2, "None")).await;
    let recorded = wait_submitted(&bed, "recorded").await;
    bed.apply(&tickets("sending", 2, "None")).await;
    bed.emulator.wait_held(1).await;

    let backup = cluster.dir.join("backup");
    cluster.stop().await.unwrap();
    copy(&cluster.etcd_data(), &backup);
    cluster.resume().await.unwrap();

    bed.emulator.release_calls().await;
    let sending = wait_submitted(&bed, "sending").await;
    edit(&bed, "suspended", r#"{"suspend": false}"#).await;
    let unsuspended = wait_submitted(&bed, "suspended").await;
    edit(&bed, "keyless", r#"{"suspend": false}"#).await;
    let with_key = wait_submitted(&bed, "keyless").await;
    assert_eq!(bed.ledger().await.jobs().len(), 4);

    let jobs = [
        ("recorded", recorded, "Submitted"),
        ("sending", sending, "Adopted"),
        ("suspended", unsuspended, "Adopted"),
        ("keyless", with_key, "Adopted"),
    ];
    // As Kubernetes asks of everybody who restores a backup: the clients start anew, since versions of objects went back.
    bed.kill_controller();
    cluster.stop().await.unwrap();
    let restored = jiff::Timestamp::now();
    fs::remove_dir_all(cluster.etcd_data()).unwrap();
    copy(&backup, &cluster.etcd_data());
    cluster.resume().await.unwrap();
    let back = bed.batches().get("suspended").await.unwrap();
    assert!(back.spec.suspend && back.status.unwrap().runs.is_empty(), "it is the state of the backup");
    bed.start_controller().await;
    edit(&bed, "suspended", r#"{"suspend": false}"#).await;
    edit(&bed, "keyless", r#"{"suspend": false}"#).await;
    for (name, remote, reason) in &jobs {
        let batch = bed.wait_condition(name, "Submitted", "True", reason).await;
        assert_eq!(batch.status.unwrap().runs[0].remote_name.as_ref(), Some(remote), "{name}");
    }
    bed.emulator.release_jobs().await;
    for (name, _, _) in &jobs {
        bed.wait_complete(name).await;
    }
    let ledger = bed.ledger().await;
    assert_eq!((ledger.jobs().len(), ledger.calls("batches.create")), (4, 4), "nothing was submitted again");
    bed.assert_holds(&Bounds { restored_at: vec![restored], ..bed.bounds() }).await;
    drop(bed);
    cluster.end().await.unwrap();
}
