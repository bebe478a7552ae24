#!/usr/bin/env bash
# Brings up a Kubernetes of one real node, in namespaces of its own, and comes back when the node is Ready.
# DIR=… for another place, and for a second bed beside the first; IMAGES="a.tar b.tar" to import at the start.
# Prints the path of the kubeconfig, which is of use inside only: in.sh COMMAND.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
source "$testenv/node/lib.sh"
run_bed
echo "$DIR/kubeconfig"
