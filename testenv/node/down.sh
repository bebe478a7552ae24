#!/usr/bin/env bash
# Ends the bed of DIR and removes all of it: processes, mounts, interfaces, cgroups, DIR. KEEP=1 on up.sh
# or e2e.sh keeps DIR, that is, the logs.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
source "$testenv/node/lib.sh"
stop_bed
clean_leftovers
