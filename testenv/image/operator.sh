#!/usr/bin/env bash
# operator.sh [PROFILE]: the operator as one static program, in an image without anything else. Prints the path of the
# archive. PROFILE is one of cargo's; release by default. The image has the name that the chart has by default.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

profile=${1:-release}
case $profile in
  # Symbols are stripped by the profile itself.
  release) flags=() gzip=9 note="10 to 20 minutes the first time on 2 busy cores" ;;
  # For the tests on a node. The library is the one of all other tests, so only the link is new: seconds, not a release
  # build. Made in every run, so small and quick: no symbols, little compression.
  *) flags=(-C strip=symbols) gzip=1 note="seconds, when the tests are built" ;;
esac
cd "$testenv/.."

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
tag=localhost/gemini-operator:$version

say "building the static program, profile $profile: $note"
# The flags after -- count for this one link only. In RUSTFLAGS they would build all dependencies anew, and procedural
# macros cannot be static. --message-format: cargo itself says where the program is, wherever the target folder is.
program=$(cargo rustc --locked --profile "$profile" --package gemini-operator --bin gemini-operator \
  --message-format=json-render-diagnostics -- -C target-feature=+crt-static "${flags[@]}" |
  "$testenv/executable.py" gemini-operator)
# The same path holds the program of a plain `cargo build`; one that ran at the same time may have replaced it.
[[ $(readelf --program-headers "$program") != *INTERP* ]] || die "$program is not static: is another cargo at work in its folder?"
# Crash points and the switches that break the protocol are for tests: nothing of them may be installed.
points=$(grep --only-matching --extended-regexp '"[cdr][0-9]+-[a-z-]+"' src/batch/points.rs | tr -d '"')
[[ $points == *c0-identity*d1-release* ]] || die "the names of the crash points are not in src/batch/points.rs"
found=$(grep --only-matching --text --fixed-strings --file=- "$program" \
  <<<"$points"$'\nGEMINI_OPERATOR_FAIL\nGEMINI_OPERATOR_BREAK' || [[ $? -eq 1 ]])
[[ -z $found ]] || die "$program is built with the feature failpoints: it has ${found//$'\n'/, }"

folder=$(dirname "$(dirname "$program")")/image
mkdir -p "$folder"
labels=(
  --label org.opencontainers.image.title=gemini-operator
  --label "org.opencontainers.image.description=Kubernetes operator that runs Gemini Batch API jobs without polling and without ever paying twice"
  --label org.opencontainers.image.licenses=Apache-2.0
  --label "org.opencontainers.image.version=$version"
)
# A copy without its history has no revision to name.
revision=$(git describe --always --dirty --abbrev=40 --exclude '*' 2>/dev/null || true)
[[ -z $revision ]] || labels+=(--label "org.opencontainers.image.revision=$revision")
ca=$("$testenv/image/ca-bundle.sh")
# A file of its own for each profile: the quick image of a test must not be taken for the one to install.
suffix=$([[ $profile == release ]] || echo "-$profile")
python3 "$testenv/image/mkimage.py" --out "$folder/gemini-operator-$version$suffix.tar" --tag "$tag" \
  --bin "$program:/usr/bin/gemini-operator" --ca "$ca" --gzip "$gzip" "${labels[@]}"
