#!/usr/bin/env bash
# Prints the path of a bundle of the public CA certificates, for the image.
# Never the bundle that this machine has assembled for itself: that one may hold private CAs,
# which then would be trusted wherever the image runs.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

distribution=${CA_CERTIFICATES_DIR:-/usr/share/ca-certificates/mozilla}

assemble() {
  local name
  for name in "${sources[@]}"; do
    cat "$name"
    echo # a file may end without a line break, and two certificates on one line are none
  done | grep -v '^$' >"$1/ca-bundle.pem"
  (($(grep -c 'BEGIN CERTIFICATE' "$1/ca-bundle.pem") >= 50)) || die "too few certificates in ${sources[0]%/*}"
}

shopt -s nullglob
LC_ALL=C
sources=("$distribution"/*.crt)
if ((${#sources[@]} == 0)); then
  say "no certificates in $distribution: taking those of PyPI's certifi"
  venv=$("$testenv/venv.sh")
  sources=("$("$venv/bin/python" -c 'import certifi; print(certifi.where())')")
fi
key=$(sha256sum "${sources[@]}" | cut -d' ' -f1 | hash_of image/ca-bundle.sh)
folder=$(cached ca-bundle "$key" assemble)
echo "$folder/ca-bundle.pem"
