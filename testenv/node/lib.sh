# Sourced by the scripts of testenv/node, after ../lib.sh.
# shellcheck shell=bash

node=$testenv/node
runs=$cache/node-runs
DIR=${DIR:-$runs/default}
node_name=e2e
node_ip=10.99.0.1
# Names of our cgroups; the pid of the run's keeper comes behind it.
cgroup_prefix=gemini-operator-node-

# need_node_bed: skip, with one line that says why, where the bed cannot run.
need_node_bed() {
  local tool
  [[ $(uname -s) == Linux ]] || skip "the node bed needs Linux"
  ((EUID == 0)) || skip "the node bed needs root"
  for tool in unshare nsenter setpriv setsid mount ip flock apt-get dpkg-deb python3; do
    command -v "$tool" >/dev/null || skip "the node bed needs $tool"
  done
  unshare --mount --net --pid --ipc --uts --fork true 2>/dev/null || skip "no new Linux namespaces are allowed here"
  [[ -n $(cgroup_roots) ]] || skip "no writable cgroups in /sys/fs/cgroup"
}

# is_keeper PID DIR: whether that process is the keeper of that run, and not a later one with its number.
is_keeper() {
  [[ -n $1 && -r /proc/$1/cmdline ]] && tr '\0' '\n' 2>/dev/null <"/proc/$1/cmdline" | grep -qxF "$node/keeper.sh" &&
    { [[ -z $2 ]] || tr '\0' '\n' 2>/dev/null <"/proc/$1/cmdline" | grep -qxF "$2"; }
}

# run_bed [die-with-caller]: start the bed of DIR and wait for its node.
run_bed() {
  local path
  need_node_bed
  # These are hidden inside of the namespaces, see inner.sh.
  for path in "$DIR" "$cache" "$testenv" "$PWD"; do
    case $path/ in
      /run/* | /var/run/* | /var/lib/* | /var/log/*) die "$path cannot be seen inside of the bed: choose another place (DIR, GEMINI_OPERATOR_CACHE)" ;;
    esac
  done
  if is_keeper "$(cat "$DIR/keeper.pid" 2>/dev/null)" "$DIR"; then die "already up: $DIR"; fi
  clean_leftovers
  remove_run "$DIR"

  # All that is built or fetched comes first: inside there is no internet, and outside nothing is started in vain.
  CONTROLPLANE=$("$testenv/controlplane.sh")
  KUBECTL=$("$testenv/kubectl.sh")
  PACKAGES=$("$node/fetch.sh")
  local image images
  images=$("$node/image.sh" pause)
  for image in ${IMAGES:-}; do images+=" $(realpath -e -- "$image")"; done
  mkdir -p "$DIR"
  export CONTROLPLANE KUBECTL PACKAGES DIR node_name node_ip

  # The keeper ends the bed when it gets SIGTERM; with die-with-caller the kernel sends it when we are gone.
  BED_IMAGES=$images ${1:+setpriv --pdeathsig TERM} setsid "$node/keeper.sh" "$DIR" </dev/null >"$DIR/keeper.log" 2>&1 &
  local keeper=$!
  until [[ -e $DIR/ready ]]; do
    if ! kill -0 "$keeper" 2>/dev/null; then
      local status=0
      wait "$keeper" || status=$?
      # The keeper has removed DIR; what it had to say it has kept beside it.
      cat "$DIR.failed" >&2 2>/dev/null || true
      rm -f "$DIR.failed"
      ((status == 77)) && exit 77
      die "the bed did not come up"
    fi
    sleep 0.05
  done
  say "$(cat "$DIR/ready")"
}

# stop_bed: end the bed of DIR and wait until nothing of it is left.
stop_bed() {
  local keeper
  keeper=$(cat "$DIR/keeper.pid" 2>/dev/null || true)
  if is_keeper "$keeper" "$DIR"; then
    kill -TERM "$keeper"
    while is_keeper "$keeper" "$DIR"; do sleep 0.05; done
  fi
  remove_run "$DIR"
}

# remove_run DIR: what is left of a run whose keeper is gone. Its processes are gone too: they die with the keeper.
remove_run() {
  [[ -d $1 ]] || return 0
  local cgroup
  cgroup=$(cat "$1/cgroup" 2>/dev/null || true)
  [[ -z $cgroup ]] || cgroup_remove "$cgroup"
  if [[ -n ${KEEP:-} ]]; then
    rm -f "$1/keeper.pid" "$1/ready" "$1/cgroup"
  else
    rm -rf "$1"
  fi
}

# clean_leftovers: of runs whose keeper was killed with SIGKILL.
clean_leftovers() {
  local path keeper
  for path in "$runs"/*/; do
    path=${path%/}
    [[ -e $path/keeper.pid ]] || continue
    is_keeper "$(cat "$path/keeper.pid")" "$path" || remove_run "$path"
  done
  for path in /sys/fs/cgroup/"$cgroup_prefix"* /sys/fs/cgroup/*/"$cgroup_prefix"*; do
    [[ -d $path ]] || continue
    keeper=${path##*"$cgroup_prefix"}
    is_keeper "$keeper" "" || cgroup_remove "${path##*/}"
  done
}

source "$node/cgroup.sh"
