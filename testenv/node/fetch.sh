#!/usr/bin/env bash
# Prints a folder with containerd, runc, the CNI plugins and nft: packages of the machine's own
# distribution, unpacked in the cache and not installed. Neither root nor a change of apt's own lists.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

packages=(containerd runc libseccomp2 containernetworking-plugins nftables libnftables1 libnftnl11 libmnl0 libjansson4 libxtables12)

unpack() {
  say "fetching ${packages[*]}"
  mkdir -p "$1/apt/lists/partial" "$1/apt/cache/archives/partial"
  local file own_state=(-o "Dir::State::Lists=$1/apt/lists" -o "Dir::Cache=$1/apt/cache" -o APT::Sandbox::User= -o Acquire::Languages=none)
  apt-get -qq "${own_state[@]}" update >&2
  (cd "$1/apt" && apt-get -qq "${own_state[@]}" download "${packages[@]}" >&2)
  for file in "$1"/apt/*.deb; do dpkg-deb -x "$file" "$1"; done
  rm -rf "$1/apt" "$1/usr/share"
}

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || skip "the node bed takes containerd from apt packages, and this machine has no apt"
key=$({ cat /etc/os-release; dpkg --print-architecture; } | hash_of node/fetch.sh)
cached node-packages "$key" unpack
