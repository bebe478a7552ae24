#!/usr/bin/env bash
# Writes the generated files: crds/ from the types in src/api, deploy/install.yaml from the chart.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
for kind in geminibatches geminiwebhooks; do
  text=$(cargo run --quiet --locked --bin gemini-operator -- crd "$kind")
  printf '%s\n' "$text" >"crds/$kind.yaml"
done
deploy/render.sh
