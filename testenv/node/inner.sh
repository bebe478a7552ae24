#!/usr/bin/env bash
# Pid 1 inside of the bed's namespaces: mounts, network, containerd, then the control plane with its node.
# As pid 1 it also has to reap what containerd's shims leave behind; bash does that while it waits.
# The environment comes from run_bed and keeper.sh: DIR CGROUP CONTROLPLANE KUBECTL PACKAGES BED_IMAGES node_name node_ip
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
source "$testenv/node/cgroup.sh"

state=/run/node
pods=10.244.0.0/24
services=10.0.0.0/24
containerd=/run/containerd/containerd.sock
libraries=$PACKAGES/usr/lib/$(uname -m)-linux-gnu

# --- Files. Places that are fixed in containerd, CNI and kubelet get a mount of ours in this mount namespace.
hostname "$node_name"
mount --make-rshared / # kubelet passes mounts on to pods
mount -t tmpfs -o mode=755 tmpfs /run
# DIR under a short name: unix sockets below it must stay under 108 bytes, however deep the checkout is.
mkdir -p $state/bed $state/bin
mount --bind "$DIR" $state/bed
mkdir -p "$DIR"/{log,lib,containerd,cni}
mount --bind "$DIR/log" /var/log
mount --bind "$DIR/lib" /var/lib
: >$state/resolv.conf # pods ask the cluster's DNS only

# kubelet sets some kernel settings of the whole machine. It gets files that hold what it wants already.
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
  kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  name=${setting%=*}
  echo "${setting#*=}" >"$state/${name//\//_}"
  mount --bind "$state/${name//\//_}" "/proc/sys/$name"
done

# --- Network. One bridge carries the node's address; CNI adds a pair of interfaces for each pod.
ip link set lo up
ip link add node0 type bridge # not "dummy": many kernels are built without it
ip address add "$node_ip/24" dev node0
ip link set node0 up
# There is no default route. Without this one the node's own packets to Services (API server to
# webhooks!) are refused before nftables sees them, while those of pods work.
ip route add $services dev node0
echo 1 >/proc/sys/net/ipv4/ip_forward

# --- Cgroups: everything of ours into a subtree beside the pods' one.
cgroup_make "$CGROUP/system"
for root in $(cgroup_roots); do echo $$ >"$root/$CGROUP/system/cgroup.procs"; done

# --- Tools. The packages are unpacked, not installed, so they need to be told where their libraries are;
# only they: a library path for everyone would also change the programs under test.
for tool in usr/bin/ctr usr/sbin/nft usr/sbin/runc; do
  printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$libraries" "$PACKAGES/$tool" >$state/bin/${tool##*/}
  chmod 755 $state/bin/${tool##*/}
done
ln -s "$KUBECTL" $state/bin/kubectl
export PATH=$state/bin:$PACKAGES/usr/bin:$PATH
export CONTAINERD_NAMESPACE=k8s.io # for ctr

# ptp routes each pod's packets: no bridge filtering, no hairpin mode and no iptables needed.
cat >"$DIR/cni/10-node.conflist" <<EOT
{"cniVersion": "0.4.0", "name": "node", "plugins": [{
  "type": "ptp", "mtu": 1500, "ipMasq": false,
  "ipam": {"type": "host-local", "dataDir": "$state/ipam", "ranges": [[{"subnet": "$pods"}]], "routes": [{"dst": "0.0.0.0/0"}]}
}]}
EOT
# oom_score and restrict_oom_score_adj: lowering the score needs a capability that root in a container has not.
cat >"$DIR/containerd.toml" <<EOT
version = 2
root = "$DIR/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt",
]
[grpc]
  address = "$containerd"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:testenv"
  restrict_oom_score_adj = true
  disable_tcp_service = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "$state/bin/runc"
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$PACKAGES/usr/lib/cni"
    conf_dir = "$DIR/cni"
EOT
LD_LIBRARY_PATH=$libraries containerd --config "$DIR/containerd.toml" >"$DIR/containerd.log" 2>&1 &
containerd_pid=$!
until ctr version >/dev/null 2>&1; do
  kill -0 $containerd_pid 2>/dev/null || { tail -n 5 "$DIR/containerd.log"; die "containerd did not start"; }
  sleep 0.05
done
for image in $BED_IMAGES; do ctr images import "$image" >/dev/null; done

# Not "$DIR": see above for the short name. "ready" appears in it, which is what run_bed waits for.
"$CONTROLPLANE" up --dir $state/bed --node "$node_name=$node_ip" --node-cgroup "$CGROUP" ${AUDIT:+--audit} &
wait -n
die "containerd or the control plane has ended"
