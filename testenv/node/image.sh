#!/usr/bin/env bash
# image.sh NAME: prints the path of the image of the small Go program node/images/NAME, as an archive.
# The image is called localhost/NAME:testenv.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

name=$1
unset GOFLAGS GOOS GOARCH GOEXPERIMENT
export CGO_ENABLED=0 GOTOOLCHAIN=local GOWORK=off

build() {
  cd "$testenv/node/images"
  "$go" build -trimpath -buildvcs=false -ldflags "-s -w" -o "$1/$name" "./$name"
  # Pods of the restricted kind need a user by number; 65535 is also what the usual pause image has.
  python3 "$testenv/image/mkimage.py" --out "$1/$name.tar" --tag "localhost/$name:testenv" --bin "$1/$name:/$name" --user 65535:65535 >/dev/null
  rm "$1/$name"
}

[[ -d $testenv/node/images/$name ]] || die "no such image: $name"
go=$(go_command)
key=$("$go" env GOVERSION GOHOSTARCH | hash_of "node/images/$name/main.go" node/images/go.mod node/image.sh image/mkimage.py)
folder=$(cached "image-$name" "$key" build)
echo "$folder/$name.tar"
