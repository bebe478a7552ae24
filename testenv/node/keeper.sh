#!/usr/bin/env bash
# keeper.sh DIR: the one process outside of the namespaces that belongs to a running bed. It makes the
# cgroups, starts the namespaces, and however the run ends it removes what would be left: the cgroups
# and DIR. If the keeper itself is killed with SIGKILL, the kernel still ends all processes, mounts and
# interfaces; the cgroups and DIR then go at the next start.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
DIR=$1
source "$testenv/node/lib.sh"

bed=
came_up=
end_bed() {
  # unshare takes pid 1 of the namespace with it, and the kernel then kills everything in there.
  [[ -z $bed ]] || kill -KILL "$bed" 2>/dev/null || true
}
clean() {
  end_bed
  if [[ -z $came_up && ! -e $DIR/ready ]]; then
    { tail -n 5 "$DIR/keeper.log"; [[ ! -e $DIR/inner.log ]] || tail -n 20 "$DIR/inner.log"; } >"$DIR.failed" 2>/dev/null || true
  fi
  remove_run "$DIR"
}
trap clean EXIT
trap 'came_up=ended; exit 0' TERM INT

cgroup=$cgroup_prefix$$
echo "$cgroup" >"$DIR/cgroup"
echo $$ >"$DIR/keeper.pid"
cgroup_make "$cgroup"
if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
  for controller in cpu memory pids; do
    grep -qw "$controller" "/sys/fs/cgroup/$cgroup/cgroup.subtree_control" || skip "the cgroup controller $controller is not given to us"
  done
fi

export CGROUP=$cgroup
setpriv --pdeathsig KILL unshare --mount --net --pid --ipc --uts --fork --kill-child --mount-proc --propagation private \
  "$node/inner.sh" </dev/null >"$DIR/inner.log" 2>&1 &
bed=$!
echo "$bed" >"$DIR/unshare.pid"
wait "$bed" || true
say "the bed has ended by itself"
exit 1
