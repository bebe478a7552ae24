#!/bin/sh
# Says, a line each, what `make demo` and `make test` need and this machine has not; ends with 0 when it has all.
# Plain sh: it is what runs where everything else is missing.
cd "$(dirname "$0")/.." || exit 1
missing=0

lacks() {
  echo "missing: $*" >&2
  missing=1
}
need() {
  name=$1
  shift
  command -v "$name" >/dev/null 2>&1 || lacks "$*"
}

[ "$(uname -s)" = Linux ] || lacks "Linux: the test cluster runs there only (a virtual machine will do)"
need cargo "Rust: install rustup from https://rustup.rs; it takes the version that rust-toolchain.toml names"
need cc "a C compiler and linker (Debian: apt-get install gcc libc6-dev)"
need bash "bash (apt-get install bash)"
need flock "flock (Debian: apt-get install util-linux)"
if ! command -v python3 >/dev/null 2>&1; then
  lacks "Python 3.10 or newer (Debian: apt-get install python3 python3-venv)"
elif ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
  lacks "Python 3.10 or newer: $(python3 --version 2>&1) is too old for testenv/requirements.txt"
elif ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
  lacks "Python's venv: this python3 cannot make environments (Debian: apt-get install python3-venv)"
fi
exit $missing
