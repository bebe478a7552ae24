#!/usr/bin/env bash
# Prints the path of the control-plane binary, built once for each state of its sources.
# A cold build takes 6 to 10 minutes and 3 GB of memory on 2 cores; after that the path comes at once.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Go settings of the caller that would change what is built, or fail in an exported tree, do not count.
# The module proxy and the module cache stay those of the environment.
unset GOFLAGS GOWORK GOEXPERIMENT GOOS GOARCH
export CGO_ENABLED=0 GOTOOLCHAIN=local GOWORK=off

build() {
  local kubernetes flags="-s -w" package
  cd "$testenv/controlplane"
  kubernetes=$(awk '$1 == "k8s.io/kubernetes" {print $2}' go.mod | head -n 1)
  # Upstream stamps its version at link time; without that the server calls itself v0.0.0-master.
  IFS=. read -r major minor _ <<<"${kubernetes#v}"
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$kubernetes -X $package.gitMajor=$major -X $package.gitMinor=$minor"
    flags+=" -X $package.gitCommit=unknown -X $package.gitTreeState=clean -X $package.buildDate=1970-01-01T00:00:00Z"
  done
  say "building the control plane ($kubernetes): 6 to 10 minutes the first time, once for each state of its sources"
  # -v names each package when it is compiled: that is the progress.
  with_progress "$1/build.log" "building the control plane" '^[a-z]+[^:]*$' \
    nice -n 5 "$go" build -v -trimpath -buildvcs=false -mod=readonly -ldflags "$flags" -o "$1/controlplane.new" .
  mv "$1/controlplane.new" "$1/controlplane"
}

go=$(go_command)
mapfile -t sources < <(cd "$testenv" && LC_ALL=C ls controlplane/*.go controlplane/go.mod controlplane/go.sum controlplane.sh)
key=$(cd / && "$go" env GOVERSION GOHOSTOS GOHOSTARCH | hash_of "${sources[@]}")
folder=$(cached controlplane "$key" build)
echo "$folder/controlplane"
