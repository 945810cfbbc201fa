#!/usr/bin/env bash
# Runs cluster/compose.yaml for real and breaks it: a node is stopped, the leader is cut off from the network and then
# killed, two of three are down, all while clients write. No write that was acknowledged may be missing on any node.
#
#   make docker-test        builds the programs first; run as root on Debian with docker and docker-compose
#   KEEP=1 make docker-test leaves the cluster running
#
# It needs no image registry. The base image is made with debootstrap, our image with the target `prebuilt` of
# cluster/Dockerfile, Prometheus' and Alertmanager's from Debian's packages. Grafana is not in Debian and not started.
# Everything is published on 127.77.0.1, so that it does not meet another cluster on this machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

programs="${CARGO_TARGET_DIR:-${HOME:?}/.cache/llm-config/target}/debug"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/llm-config/target}"
export PUBLISH_ADDRESS=127.77.0.1
export LLM_CONFIG_IMAGE=llm-config-test/llm-config-manager
export PROMETHEUS_IMAGE=llm-config-test/prometheus ALERTMANAGER_IMAGE=llm-config-test/alertmanager
base=llm-config-test/debian:bookworm
project=llm-config-test
nodes=(llm-config-manager llm-config-manager-2 llm-config-manager-3)
ports=(8080 8081 8082)
# For anything that the cluster or Docker is waited for.
patience=90
# Writes that must be acknowledged in each phase before it counts.
phase_writes=40
work=$(mktemp -d)
export SECRETS_DIR="$work/secrets" ALERT_CHANNELS_DIR="$work/channels"
acked="$work/acked"
writers=()

say() { echo "docker-test: $*"; }
fail() {
    echo "docker-test: $*" >&2
    exit 1
}

if docker compose version >/dev/null 2>&1; then
    compose=(docker compose)
elif command -v docker-compose >/dev/null; then
    compose=(docker-compose)
else
    fail "neither \`docker compose\` nor docker-compose is here"
fi
compose+=(--file cluster/compose.yaml --project-name "$project")

clean_up() {
    local status=$?
    stop_writers
    if ((status != 0)); then
        "${compose[@]}" logs --no-color --tail 10 >&2 || true
    fi
    if [[ ${KEEP:-} != 1 ]]; then
        "${compose[@]}" down --volumes --timeout 5 >/dev/null 2>&1 || true
    fi
    rm -rf "$work"
}

# --- images ---------------------------------------------------------------------------------------------------------

build_images() {
    local folder="$work/context"
    if ! docker image inspect "$base" >/dev/null 2>&1; then
        ((EUID == 0)) || fail "debootstrap needs root, once"
        command -v debootstrap >/dev/null || apt-get install -y -qq --no-install-recommends debootstrap >&2
        say "making the base image"
        debootstrap --variant=minbase bookworm "$work/base" http://deb.debian.org/debian >"$work/debootstrap.log" ||
            fail "debootstrap failed: $(tail -n 3 "$work/debootstrap.log")"
        tar -C "$work/base" --one-file-system -c . | docker import - "$base" >/dev/null
        rm -rf "$work/base"
    fi
    mkdir -p "$folder"
    for program in llm-config-manager llm-config; do
        [[ -x $programs/$program ]] || fail "$programs/$program is missing: run \`make build\` first"
        strip --strip-debug -o "$folder/$program" "$programs/$program"
    done
    build "$LLM_CONFIG_IMAGE" --file cluster/Dockerfile --target prebuilt --build-arg "BASE_IMAGE=$base" "$folder"

    .ci/tools
    # With the entry points, users and folders of the official images.
    mkdir -p "$work/monitoring"
    cp "$CARGO_TARGET_DIR"/../tools/usr/bin/{prometheus,promtool,prometheus-alertmanager,amtool} "$work/monitoring"
    mv "$work/monitoring/prometheus-alertmanager" "$work/monitoring/alertmanager"
    cp -r "$CARGO_TARGET_DIR"/../tools/usr/share/prometheus "$work/monitoring/share"
    cat >"$work/monitoring/Dockerfile" <<'DOCKERFILE'
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ARG SERVER
COPY prometheus promtool alertmanager amtool /bin/
COPY share /usr/share/prometheus
RUN install -d -o nobody -g nogroup /prometheus /alertmanager && ln -s "/bin/$SERVER" /bin/server
USER nobody
WORKDIR /prometheus
ENTRYPOINT ["/bin/server"]
DOCKERFILE
    for server in prometheus alertmanager; do
        build "llm-config-test/$server" --build-arg "BASE_IMAGE=$base" --build-arg "SERVER=$server" "$work/monitoring"
    done
}

build() {
    local tag=$1
    shift
    docker build --tag "$tag" "$@" >"$work/build.log" 2>&1 || {
        cat "$work/build.log" >&2
        fail "$tag cannot be built"
    }
}

# --- the cluster ----------------------------------------------------------------------------------------------------

url() { echo "http://$PUBLISH_ADDRESS:${ports[$1]}$2"; }

wait_for() {
    local what=$1 deadline=$((SECONDS + patience))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || fail "waited $patience s in vain: $what"
        sleep 0.2
    done
}

status_is() { [[ $(curl -s -o /dev/null --max-time 3 -w '%{http_code}' "$1") == "$2" ]]; }
ready() { status_is "$(url "$1" /health/ready)" 200; }
container() { "${compose[@]}" ps -q "${nodes[$1]}"; }
healthy() { [[ $(docker inspect -f '{{.State.Health.Status}}' "$(container "$1")") == healthy ]]; }

# Puts the number of the leader, counted from 0, into `leader`.
find_leader() {
    for leader in 0 1 2; do
        if status_is "$(url "$leader" /health/leader)" 200; then return 0; fi
    done
    return 1
}

# --- writers --------------------------------------------------------------------------------------------------------

# Writes one new key after the other through all nodes in turn. A write that was not acknowledged is made again under
# the same idempotency key, through the next node.
writer() {
    local name=$1 number=0 node=$1 code
    while [[ ! -e $work/stop ]]; do
        number=$((number + 1))
        while [[ ! -e $work/stop ]]; do
            node=$(((node + 1) % 3))
            code=$(curl -s -o /dev/null --max-time 8 -w '%{http_code}' -X PUT --config "$work/curl" \
                -H 'Content-Type: application/json' -H "Idempotency-Key: w$name-$number" \
                -d "{\"env\": \"production\", \"value\": $number}" \
                "$(url "$node" "/api/v1/configs/docker/w$name-$number")") || true
            if [[ $code == 200 || $code == 201 ]]; then
                echo "\"w$name-$number\":$number" >>"$acked.$name"
                break
            fi
            echo "$code" >>"$work/refused.$name"
            sleep 0.1
        done
    done
}

# The token goes into a file for curl, so that no list of processes shows it.
make_secrets() {
    cluster/make-secrets.sh "$SECRETS_DIR" 2>/dev/null
    printf 'header = "Authorization: Bearer %s"\n' "$(cat "$SECRETS_DIR/bootstrap-token")" >"$work/curl"
}

# Nobody gets in without the token, and `llm-config` in a container has it.
verify_authentication() {
    status_is "$(url 0 "/api/v1/resolve/docker")" 401 || fail "a read without a token is not answered with 401"
    docker exec "$(container 1)" llm-config status >"$work/status" || fail "llm-config in a container: $(cat "$work/status")"
    if "${compose[@]}" logs --no-color "${nodes[@]}" | grep -qF -f "$SECRETS_DIR/bootstrap-token" -f "$SECRETS_DIR/master-key"; then
        fail "the log of a node shows the token or the master key"
    fi
}

start_writers() {
    for name in 0 1 2 3; do
        : >"$acked.$name"
        : >"$work/refused.$name"
        writer "$name" &
        writers+=($!)
    done
}

stop_writers() {
    touch "$work/stop"
    if ((${#writers[@]})); then
        wait "${writers[@]}" || true
        writers=()
    fi
}

acknowledged() { cat "$acked".? | wc -l; }
more_than() { (($(acknowledged) > $1)); }

# Waits until clients have written through the fault, and notes how many writes that were.
phase() {
    local before
    before=$(acknowledged)
    wait_for "$phase_writes writes while $1" more_than $((before + phase_writes))
    summary+=("$(printf '%-52s %5d writes acknowledged' "$1" $(($(acknowledged) - before)))")
    say "${summary[-1]}"
}

# --- checks ---------------------------------------------------------------------------------------------------------

# Everything acknowledged is on each node: for linearizable reads, and in the node's own state.
verify_writes() {
    local node kind missing
    sort "$acked".? >"$work/expected"
    for node in 0 1 2; do
        for kind in linearizable cached; do
            curl -sS --fail --max-time 30 --config "$work/curl" -o "$work/answer" \
                "$(url "$node" "/api/v1/resolve/docker?env=production&consistency=$kind")"
            grep -oE '"w[0-9]-[0-9]+":[0-9]+' "$work/answer" | sort >"$work/found"
            missing=$(comm -23 "$work/expected" "$work/found" | wc -l)
            ((missing == 0)) || fail "${nodes[$node]}: $missing acknowledged writes are missing in a $kind read:
$(comm -23 "$work/expected" "$work/found" | head)"
        done
    done
}

query() { curl -s --max-time 5 -G "http://$PUBLISH_ADDRESS:9091$1" "${@:2}"; }
targets_are_up() {
    query /api/v1/query --data-urlencode 'query=count(up{job="llm-config-manager"} == 1)' | grep -q '"3"\]'
}
rate_is_recorded() {
    query /api/v1/query --data-urlencode 'query=job:http_success_rate:5m' | grep -q '"__name__":"job:http_success_rate:5m"'
}
alertmanager_is_found() { query /api/v1/alertmanagers | grep -q '"activeAlertmanagers":\[{"url"'; }

verify_monitoring() {
    wait_for "Prometheus reads all three nodes" targets_are_up
    wait_for "Prometheus finds Alertmanager" alertmanager_is_found
    wait_for "a recording rule has a value" rate_is_recorded
    if query /api/v1/rules | grep -q '"health":"err"'; then
        fail "a rule cannot be evaluated: $(query /api/v1/rules)"
    fi
    for service in prometheus alertmanager; do
        wait_for "$service is healthy" service_is_healthy "$service"
    done
    [[ $("${compose[@]}" exec -T alertmanager amtool --alertmanager.url=http://127.0.0.1:9093 config show) == *webhook_configs* ]] ||
        fail "Alertmanager does not have the channel that its folder names"
}
service_is_healthy() { [[ $(docker inspect -f '{{.State.Health.Status}}' "$("${compose[@]}" ps -q "$1")") == healthy ]]; }

# --- the run --------------------------------------------------------------------------------------------------------

summary=()
trap clean_up EXIT
build_images
make_secrets
# One channel, whose address nobody listens on: that Alertmanager took it is what is looked at.
mkdir "$ALERT_CHANNELS_DIR"
echo http://127.0.0.1:1/ >"$ALERT_CHANNELS_DIR/watchdog.webhook-url"
say "image $LLM_CONFIG_IMAGE: $(($(docker image inspect -f '{{.Size}}' "$LLM_CONFIG_IMAGE") >> 20)) MiB with the debug programs"
"${compose[@]}" up --detach --no-build "${nodes[@]}" prometheus alertmanager >"$work/up.log" 2>&1 ||
    fail "compose up: $(cat "$work/up.log")"
for node in 0 1 2; do
    wait_for "${nodes[$node]} is ready" ready "$node"
    wait_for "${nodes[$node]} is healthy for Docker" healthy "$node"
    [[ $(docker exec "$(container "$node")" id -u) == 10001 ]] || fail "${nodes[$node]} runs as another user than 10001"
done
verify_authentication
start_writers
phase "all three nodes run"

"${compose[@]}" stop llm-config-manager-3 >/dev/null 2>&1
[[ $(docker inspect -f '{{.State.ExitCode}}' "$(docker ps -aqf "label=com.docker.compose.project=$project" -f label=com.docker.compose.service=llm-config-manager-3)") == 0 ]] ||
    fail "llm-config-manager-3 did not stop cleanly"
phase "llm-config-manager-3 is stopped"
"${compose[@]}" start llm-config-manager-3 >/dev/null 2>&1
wait_for "llm-config-manager-3 is back" ready 2

wait_for "a leader" find_leader
cut=$leader
docker network disconnect "${project}_cluster" "$(container "$cut")"
phase "the leader (${nodes[$cut]}) is cut off"
# The node that is cut off must not call itself healthy.
docker exec "$(container "$cut")" bash -c \
    "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /health HTTP/1.0\r\n\r\n' >&3 && read -r line <&3 && [[ \$line == *' 503 '* ]]" ||
    fail "${nodes[$cut]} is cut off and does not answer /health with 503"
docker network connect --alias "${nodes[$cut]}" "${project}_cluster" "$(container "$cut")"
wait_for "${nodes[$cut]} is back" ready "$cut"

wait_for "a leader" find_leader
killed=$leader
started=$(docker inspect -f '{{.State.StartedAt}}' "$(container "$killed")")
# From outside, as the kernel does when memory runs out: Docker starts it again by the restart policy.
kill -KILL "$(docker inspect -f '{{.State.Pid}}' "$(container "$killed")")"
phase "the leader (${nodes[$killed]}) was killed"
restarted() { [[ $(docker inspect -f '{{.State.StartedAt}}' "$(container "$killed")") != "$started" ]]; }
wait_for "Docker starts ${nodes[$killed]} again" restarted
wait_for "${nodes[$killed]} is back" ready "$killed"

"${compose[@]}" restart llm-config-manager >/dev/null 2>&1
wait_for "llm-config-manager is back" ready 0
phase "llm-config-manager was restarted as the guide says"

"${compose[@]}" stop llm-config-manager-2 llm-config-manager-3 >/dev/null 2>&1
wait_for "the last node says that it has no majority" status_is "$(url 0 /health)" 503
status_is "$(url 0 /health/live)" 200 || fail "a node without a majority must stay alive"
"${compose[@]}" start llm-config-manager-2 llm-config-manager-3 >/dev/null 2>&1
for node in 0 1 2; do
    wait_for "${nodes[$node]} is back" ready "$node"
done
phase "two of three were down, and are back"

stop_writers
verify_writes
verify_monitoring

echo
printf '  %s\n' "${summary[@]}"
printf '  %s\n' "$(acknowledged) writes acknowledged, none missing on any of the three nodes, in linearizable and in cached reads"
printf '  %s\n' "$(cat "$work"/refused.? | wc -l) attempts were refused or got no answer and were made again"
printf '  %s\n' "Prometheus reads three nodes and knows Alertmanager; all rules are evaluated"
say "passed in $SECONDS s"
