#!/usr/bin/env bash
# Three nodes as three processes on this machine, so that one of them can be killed.
#
#   cluster/local.sh               start all three; Ctrl-C stops them; their lines carry the node's number
#   cluster/local.sh node N        start node N alone, in the foreground (to bring a killed one back)
#   cluster/local.sh join N        start a new node N (4 to 9) that waits to be added; its lines say how
#   cluster/local.sh kill-leader   kill -9 the process that leads
#   cluster/local.sh kill N        kill -9 node N
#
# Ports are those of `make run`: node N has HTTP 8080+N-1, metrics 9090+N-1, gRPC 50051+N-1, raft 50061+N-1.
# Data lies in llm-config-local below the repository, or where LLM_CONFIG_LOCAL_DIR says; delete it to start afresh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

server="${CARGO_TARGET_DIR:-${HOME:?}/.cache/llm-config/target}/debug/llm-config-manager"
data="${LLM_CONFIG_LOCAL_DIR:-$PWD/llm-config-local}"
founders="1=127.0.0.1:50061,2=127.0.0.1:50062,3=127.0.0.1:50063"

fail() {
    echo "local: $*" >&2
    exit 1
}

check_id() {
    [[ ${1:-} =~ ^[1-9]$ ]] || fail "which node? It is 1, 2 or 3, or one that was added, up to 9"
}

check_new() {
    [[ ${1:-} =~ ^[4-9]$ ]] || fail "which number does the new node get? 4 to 9, one that was never used"
}

# Replaces this shell, so that the process id in the file is the server's.
serve() {
    local id=$1 offset=$(($1 - 1)) cluster=(--initial-cluster "$founders")
    if ((id > 3)); then
        cluster=(--join http://127.0.0.1:8080,http://127.0.0.1:8081,http://127.0.0.1:8082)
    fi
    mkdir -p "$data/$id"
    echo "$BASHPID" >"$data/$id.pid"
    exec "$server" serve --node-id "$id" --data-dir "$data/$id" "${cluster[@]}" --auth off \
        --http-addr "127.0.0.1:$((8080 + offset))" --metrics-addr "127.0.0.1:$((9090 + offset))" \
        --grpc-addr "127.0.0.1:$((50051 + offset))" --raft-addr "127.0.0.1:$((50061 + offset))"
}

start_all() {
    local id
    for id in 1 2 3; do
        (serve "$id") > >(sed -u "s/^/$id │ /") 2>&1 &
    done
    # Ctrl-C reaches the nodes too: they drain and stop by themselves, and only then does this script end.
    trap 'kill -TERM $(jobs -p) 2>/dev/null || true' TERM
    trap ':' INT
    while [[ -n $(jobs -rp) ]]; do
        wait || true
    done
}

kill_node() {
    local id=$1 pid
    pid=$(cat "$data/$id.pid" 2>/dev/null) || fail "node $id was not started by this script"
    [[ $(readlink "/proc/$pid/exe" 2>/dev/null) == *llm-config-manager* ]] || fail "node $id does not run"
    kill -KILL "$pid"
    echo "killed node $id; bring it back with: cluster/local.sh node $id"
}

kill_leader() {
    local port leader
    for port in 8080 8081 8082; do
        leader=$(curl -fsS --max-time 2 "http://127.0.0.1:$port/api/v1/cluster" 2>/dev/null |
            sed -nE 's/.*"leader_id": ?([0-9]+).*/\1/p') || continue
        if [[ -n $leader ]]; then
            kill_node "$leader"
            return
        fi
    done
    fail "no node names a leader"
}

[[ -x $server ]] || fail "$server is missing: run \`make build\` first"
case "${1:-}" in
"") start_all ;;
node) check_id "${2:-}" && serve "$2" ;;
join) check_new "${2:-}" && serve "$2" ;;
kill) check_id "${2:-}" && kill_node "$2" ;;
kill-leader) kill_leader ;;
*) fail "unknown command '$1'; the first lines of $0 list them" ;;
esac
