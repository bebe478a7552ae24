#!/usr/bin/env bash
# Prints the path of a kubectl of the control plane's minor version: the machine's own may be too old for it.
set -euo pipefail
echo "$("$(dirname "${BASH_SOURCE[0]}")/venv.sh")/bin/kubectl"
