#!/usr/bin/env bash
# Prints the folder of a Python environment with what testenv/requirements.txt names.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

create() {
  say "installing testenv/requirements.txt (about a minute, once)"
  python3 -m venv "$1"
  "$1/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$testenv/requirements.txt" >&2
}

command -v python3 >/dev/null || die "python3 is missing"
python3 -c 'import ensurepip, venv' 2>/dev/null ||
  die "this python3 cannot make environments: install its venv package (Debian: apt-get install python3-venv)"
# The environment holds links to the interpreter, so another one gets another environment.
key=$(python3 -c 'import os, sys; print(os.path.realpath(sys.executable), sys.version)' | hash_of requirements.txt)
cached venv "$key" create
