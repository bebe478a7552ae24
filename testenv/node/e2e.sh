#!/usr/bin/env bash
# e2e.sh COMMAND...: bring a node bed up, run the command inside of it, remove everything; returns the
# command's status, or 77 with the reason where no bed can run. Build the command first: inside there
# is no internet. IMAGES="a.tar b.tar": images to import; KEEP=1: keep the logs.
# Also if this script is killed with SIGKILL, the bed goes, and its keeper removes what it has left.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
DIR=${DIR:-$cache/node-runs/e2e-$$}
export DIR
source "$testenv/node/lib.sh"

(($# > 0)) || die "usage: e2e.sh COMMAND..."
trap stop_bed EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
run_bed die-with-caller
# In the background and awaited, because a trap runs only between commands and must not wait for this one.
"$node/in.sh" "$@" <&0 &
command=$!
trap 'kill "$command" 2>/dev/null || true; exit 130' INT
trap 'kill "$command" 2>/dev/null || true; exit 143' TERM
status=0
wait "$command" || status=$?
exit "$status"
