//! What the pods may do, seen from the node.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use kube::ResourceExt;
use serde_json::json;

use crate::stay::{PROGRAM, Stay, wait_for_processes};
use crate::support::OPERATOR_NAMESPACE;

/// The plain files below a folder, without other file systems.
fn files(root: &Path, folder: &Path, found: &mut BTreeSet<String>) {
    let device = fs::symlink_metadata(root.join(".")).unwrap().dev();
    for path in fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
        let about = fs::symlink_metadata(&path).unwrap();
        if about.dev() != device {
            continue;
        }
        if about.is_dir() {
            files(root, &path, found);
        } else {
            found.insert(format!("/{}", path.strip_prefix(root).unwrap().display()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside of the node bed: make e2e-node"]
async fn pods_are_restricted_and_the_image_holds_the_program_alone() {
    let stay = Stay::new("restricted", &json!({})).await;
    let controllers = wait_for_processes("controller", 1).await;
    let receivers = wait_for_processes("receiver", 2).await;
    for process in controllers.iter().chain(&receivers) {
        let status = fs::read_to_string(process.join("status")).unwrap();
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(field("Uid"), "65532 65532 65532 65532");
        assert_eq!(field("Gid"), "65532 65532 65532 65532");
        assert_eq!(field("CapBnd"), "0000000000000000");
        assert_eq!(field("CapEff"), "0000000000000000");
        assert_eq!(field("NoNewPrivs"), "1");
        assert_eq!(field("Seccomp"), "2", "a filter");

        let mounts = fs::read_to_string(process.join("mountinfo")).unwrap();
        let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
        let mut options = root.split(' ').nth(5).unwrap().split(',');
        assert!(options.any(|option| option == "ro"), "the root is read-only: {root}");

        let mut found = BTreeSet::new();
        files(&process.join("root"), &process.join("root"), &mut found);
        let wanted = [
            "/etc/group",
            "/etc/nsswitch.conf",
            "/etc/passwd",
            "/etc/ssl/certs/ca-certificates.crt",
            PROGRAM,
        ];
        assert_eq!(found, wanted.map(ToOwned::to_owned).into());
    }

    let kubectl = stay.cluster.kubectl(OPERATOR_NAMESPACE);
    for pod in stay.pods("controller").await.iter().chain(&stay.pods("receiver").await) {
        let refused = kubectl.run(&["exec", &pod.name_any(), "--", "sh"]).await.expect_refused();
        assert!(refused.contains("not found") || refused.contains("no such file"), "{refused}");
    }
    let image = "--image=localhost/gemini-operator";
    let refused = kubectl.run(&["run", "unrestricted", image]).await.expect_refused();
    assert!(refused.contains("violates PodSecurity \"restricted"), "{refused}");
}
