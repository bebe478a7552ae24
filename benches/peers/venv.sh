#!/usr/bin/env bash
# Prints the folder of a Python environment with what requirements.txt beside it names.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../../testenv/lib.sh"

create() {
  say "installing benches/peers/requirements.txt (about a minute, once)"
  python3 -m venv "$1"
  "$1/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$here/requirements.txt" >&2
}

# The environment holds links to the interpreter, so another one gets another environment.
key=$({ python3 -c 'import os, sys; print(os.path.realpath(sys.executable), sys.version)'; cat "$here/requirements.txt"; } | sha256sum | cut -c1-16)
cached peers "$key" create
