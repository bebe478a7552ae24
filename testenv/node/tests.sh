#!/usr/bin/env bash
# tests.sh [NAME]...: the tests of tests/node, those whose name has NAME in it: the chart on a real node. Builds what
# they need, then runs them inside of a bed. Status 77 and one line that says why, where no bed can run.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
source "$testenv/node/lib.sh"

# Before anything is built for nothing.
need_node_bed

say "building what is missing (Go and Rust side by side; minutes the first time)"
"$testenv/controlplane.sh" >/dev/null &
control=$!
trap 'kill "$control" 2>/dev/null || true' EXIT
cd "$testenv/.."
# --workspace, and a test among the targets: the same features of all dependencies as in `cargo test --workspace`,
# which then has nothing to build twice.
programs=$(cargo build --locked --workspace --bins --test node --message-format=json-render-diagnostics |
  "$testenv/executable.py" node gemini-emulator)
{ read -r tests && read -r GEMINI_EMULATOR_BIN; } <<<"$programs"
IMAGES=$("$testenv/image/operator.sh" dev)
HELM=$("$testenv/helm.sh")
KUBECTL=$("$testenv/kubectl.sh")
wait "$control"
# After the control plane and not beside it: each of these builds takes 3 GB of memory.
TRAEFIK=$("$testenv/ingress.sh")
# AUDIT: with the API server's log the checker can judge everything.
export GEMINI_EMULATOR_BIN IMAGES HELM KUBECTL TRAEFIK AUDIT=1

# They share one operator and take turns, so one after the other is as quick and shows which one is at work.
exec "$node/e2e.sh" "$tests" --ignored --test-threads=1 "$@"
