#!/usr/bin/env bash
# Whether the node bed is a Kubernetes as it should be: probes, Services, DNS, in-pod credentials,
# security settings, limits, logs, exec, port-forward, rolling update. 40 s; runs itself inside of a bed.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [[ -z ${NODE_BED:-} ]]; then
  IMAGES=$("$here/image.sh" server)
  export IMAGES
  exec "$here/e2e.sh" "$here/checks.sh"
fi

count=0 failed=0
scratch=$(mktemp -d)
jobs=()
trap 'for job in "${jobs[@]}"; do kill "$job" 2>/dev/null || true; done; rm -rf "$scratch"' EXIT

k() { kubectl --namespace checks "$@"; }
inside() { k exec "${pods[0]}" -- /server "$@" 2>&1 || true; }
web() { curl --silent --max-time 3 "$@" || true; }

# check WHAT WANTED COMMAND...: until the output holds what is wanted, for up to 20 s: most things in a
# cluster are true a moment later (endpoints, probes, status).
check() {
  local what=$1 wanted=$2 got='' end=$((SECONDS + 20))
  shift 2
  count=$((count + 1))
  until got=$("$@" 2>&1 || true) && [[ $got == *"$wanted"* ]]; do
    if ((SECONDS >= end)); then
      failed=$((failed + 1))
      echo "FAILED $what: wanted '$wanted', got '${got:0:300}'"
      return 0
    fi
    sleep 0.2
  done
  echo "ok     $what"
}

kubectl apply --filename "$here/checks.yaml" >/dev/null
k rollout status deployment/web --timeout=60s >/dev/null
mapfile -t pods < <(k get pods --selector app=web --output name)
ip_of() { k get "$1" --output jsonpath='{.status.podIP}'; }
first=$(ip_of "${pods[0]}")
second=$(ip_of "${pods[1]}")
service=$(k get service web --output jsonpath='{.spec.clusterIP}')

check "pod from the node" web- web "http://$first:8080/"
check "Service from the node" web- web "http://$service/"
check "Service from a pod" "200 web-" inside get "http://$service/"
answering() { for _ in {1..20}; do inside get "http://$service/"; done | cut -d' ' -f2 | sort -u | wc -l; }
check "Service spreads over both pods, itself included" 2 answering
check "pod to pod keeps the source address" "from=$first" inside get "http://$second:8080/"

check "DNS: full name" "$service" inside resolve web.checks.svc.cluster.local
check "DNS: search path" "$service" inside resolve web
check "DNS: headless" "$second" inside resolve web-headless
check "DNS: nothing outside" "no such host" inside resolve example.com

check "in-pod token: allowed" "200 " inside api /api/v1/namespaces/checks/pods
check "in-pod token: forbidden" "403 " inside api /api/v1/namespaces/kube-system/secrets
check "in-pod token: API server by name" "200 " inside api https://kubernetes.default.svc/api/v1/namespaces/checks/services

check "logs" "listening web-" k logs "${pods[0]}"
check "exec gives the exit code" "status 7" bash -c 'kubectl -n checks exec "$1" -- /server exit 7; echo "status $?"' - "${pods[0]}"
forward() { # TARGET PORTS
  k port-forward "$1" "$2" >/dev/null 2>&1 &
  jobs+=($!)
}
forward "${pods[0]}" 18080:8080
check "port-forward to a pod" web- web http://127.0.0.1:18080/
forward service/web 18081:80
check "port-forward to a Service" web- web http://127.0.0.1:18081/

status_of() { web "http://$first:8080/status" | tr -s '[:space:]' ' '; }
check "runs as its user" "Uid: 65532 65532" status_of
check "has no capabilities" "CapBnd: 0000000000000000" status_of
check "cannot gain privileges" "NoNewPrivs: 1" status_of
check "has a seccomp filter" "Seccomp: 2" status_of
check "root file system is read-only" "read-only file system" inside write /file
check "emptyDir is writable" "written" inside write /scratch/file
check "Pod Security refuses other pods" "violates PodSecurity" k run bad --image=localhost/server:testenv --image-pull-policy=Never

either() { inside read "/sys/fs/cgroup/$1"; inside read "/sys/fs/cgroup/$2"; } # cgroup version 1 or 2
check "memory limit" 67108864 either memory/memory.limit_in_bytes memory.max
check "CPU limit" 100000 either cpu/cpu.cfs_quota_us cpu.max
k exec "${pods[1]}" -- /server get 'http://127.0.0.1:8080/eat?mb=200' >/dev/null 2>&1 || true
check "too much memory: killed" OOMKilled k get "${pods[1]}" --output jsonpath='{.status.containerStatuses[0].lastState.terminated.reason}'
check "… and restarted" 1 k get "${pods[1]}" --output jsonpath='{.status.containerStatuses[0].restartCount}'
k wait --for=condition=Ready "${pods[1]}" --timeout=40s >/dev/null

k delete "${pods[0]}" >/dev/null
k rollout status deployment/web --timeout=60s >/dev/null
check "deleted pod is replaced" 2 k get deployment web --output jsonpath='{.status.readyReplicas}'

# One client asks all through a rolling update; a request that fails is a request lost.
ask() {
  until [[ -e $scratch/stop ]]; do
    if curl --silent --fail --max-time 3 "http://$service/" >/dev/null; then echo answered; else echo lost; fi
  done >"$scratch/requests"
}
ask &
client=$!
jobs+=("$client")
k set env deployment/web VERSION=v2 >/dev/null
k rollout status deployment/web --timeout=60s >/dev/null
check "rolling update: the new version answers" " v2 " web "http://$service/"
touch "$scratch/stop"
wait "$client"
check "rolling update: requests were answered" answered sort -u "$scratch/requests"
check "rolling update: none was lost" "0 lost" bash -c 'echo "$(grep -c lost "$1") lost of $(wc -l <"$1")"' - "$scratch/requests"
k rollout undo deployment/web >/dev/null
k rollout status deployment/web --timeout=60s >/dev/null
check "rollout undo" " v1 " web "http://$service/"

check "node reports its capacity" Ki kubectl get nodes --output jsonpath='{.items[0].status.capacity.memory}'
check "kubelet statistics by the API server" nodeName kubectl get --raw /api/v1/nodes/e2e/proxy/stats/summary
check "events" Started k get events

echo "$((count - failed)) of $count ok ($(wc -l <"$scratch/requests") requests during the update)"
((failed == 0))
