#!/usr/bin/env bash
# Prints the path of Traefik, the ingress controller of the tests, built once for each state of its sources. Beside it,
# in gateway-api/, are the custom resource definitions of the Gateway API that it was built against.
# A cold build takes 5 to 12 minutes and 3 GB of memory on 2 cores; after that the path comes at once.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# As in controlplane.sh: settings of the caller that would change what is built do not count.
unset GOFLAGS GOWORK GOEXPERIMENT GOOS GOARCH
export CGO_ENABLED=0 GOTOOLCHAIN=local GOWORK=off

build() {
  local traefik crds file
  cd "$testenv/ingress"
  traefik=$(awk '$1 == "github.com/traefik/traefik/v3" {print $2}' go.mod | head -n 1)
  say "building the ingress controller (Traefik $traefik): 5 to 12 minutes the first time, once for each state of its sources"
  # -v names each package when it is compiled: that is the progress.
  with_progress "$1/build.log" "building the ingress controller" '^[a-z]+[^:]*$' \
    nice -n 5 "$go" build -v -trimpath -buildvcs=false -mod=readonly -ldflags "-s -w" -o "$1/traefik.new" github.com/traefik/traefik/v3/cmd/traefik
  crds=$("$go" list -mod=readonly -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)/config/crd/standard
  mkdir "$1/gateway-api"
  # By cat: files of the module cache are read-only, and forget_old is to remove these.
  for file in "$crds"/*.yaml; do cat "$file" >"$1/gateway-api/${file##*/}"; done
  mv "$1/traefik.new" "$1/traefik"
}

go=$(go_command)
mapfile -t sources < <(cd "$testenv" && LC_ALL=C find ingress -name '*.go' -o -name go.mod -o -name go.sum | LC_ALL=C sort; echo ingress.sh)
key=$(cd / && "$go" env GOVERSION GOHOSTOS GOHOSTARCH | hash_of "${sources[@]}")
folder=$(cached ingress "$key" build)
echo "$folder/traefik"
