#!/usr/bin/env bash
# in.sh COMMAND...: run it inside of the bed of DIR, in the current folder, with KUBECONFIG and with
# kubectl and ctr on PATH. Its status is returned.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
source "$testenv/node/lib.sh"

(($# > 0)) || die "usage: in.sh COMMAND..."
unshare_pid=$(cat "$DIR/unshare.pid" 2>/dev/null) || die "no bed in $DIR: up.sh starts one"
first=$(cut -d' ' -f1 "/proc/$unshare_pid/task/$unshare_pid/children" 2>/dev/null) || true
[[ -n $first ]] || die "the bed in $DIR has ended"
# nsenter forgets the working directory when it changes the mounts, hence env -C.
exec nsenter --target "$first" --mount --net --pid --ipc --uts -- \
  env -C "$PWD" KUBECONFIG="$DIR/kubeconfig" CONTAINERD_NAMESPACE=k8s.io PATH="/run/node/bin:$PATH" NODE_BED="$DIR" "$@"
