# Sourced. Cgroups for both kinds of hosts: version 1 (one tree for each controller, as here in tests)
# and version 2 (one tree; written from the kernel's documentation and NOT RUN so far).
# shellcheck shell=bash

# The root of each tree in use. A hybrid host's "unified" tree has no controllers.
cgroup_roots() {
  local root
  if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
    [[ ! -w /sys/fs/cgroup/cgroup.procs ]] || echo /sys/fs/cgroup
    return 0
  fi
  for root in /sys/fs/cgroup/*/; do
    root=${root%/}
    [[ ${root##*/} == unified || ! -w $root/cgroup.procs ]] || echo "$root"
  done
}

# cgroup_make NAME[/CHILD]: make it in every tree, ready to take processes.
cgroup_make() {
  local root controller file
  for root in $(cgroup_roots); do
    mkdir -p "$root/$1"
    if [[ -e $root/cgroup.controllers ]]; then
      [[ $1 == */* ]] || for controller in cpu cpuset memory pids io; do
        # One by one: a controller that is missing here must not keep the others away.
        echo "+$controller" >"$root/cgroup.subtree_control" || true
        echo "+$controller" >"$root/$1/cgroup.subtree_control" || true
      done 2>/dev/null
    elif [[ -e $root/cpuset.cpus ]]; then
      # A new cpuset is empty and takes no process until it is filled.
      for file in cpuset.cpus cpuset.mems; do cat "$root/$file" >"$root/$1/$file"; done
    fi
  done
}

# cgroup_remove NAME: with all below it, as soon as the last process has left.
cgroup_remove() {
  local tree end=$((SECONDS + 15))
  # Not by cgroup_roots: runc makes groups in a hybrid host's "unified" tree too.
  for tree in /sys/fs/cgroup/"$1" /sys/fs/cgroup/*/"$1"; do
    until [[ ! -d $tree ]] || find "$tree" -depth -type d -exec rmdir {} + 2>/dev/null; do
      ((SECONDS < end)) || { say "cgroup $tree is still in use"; break; }
      sleep 0.05
    done
  done
}
