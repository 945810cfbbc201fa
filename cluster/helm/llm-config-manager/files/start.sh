#!/bin/sh
# Which node this pod is, and how it begins. The container's command; `start.sh restore` is the init container of a
# restore. Everything comes from the environment that the StatefulSet sets, and from the file of disk generations.
#
# The node id is ordinal + 1 + 100 × generation: pods keep their ordinal for ever, but a disk that was lost takes its
# node id with it. The server itself refuses (exit 3) an id that is on the wrong disk, so a mistake here stops the pod
# and harms nothing.
set -eu

fail() {
    echo "start.sh: $*" >&2
    exit 2
}

number() {
    case $2 in
    '' | *[!0-9]* | 0[0-9]* | ???*) fail "$1 is '$2', which is no number from 0 to 99" ;;
    esac
}

disks=${DISKS_FILE:-/etc/llm-config/generations}
config=${CONFIG_FILE:-/etc/llm-config/llm-config.yaml}
data_dir=${DATA_DIR:-/var/lib/llm-config}
inbox=${RESTORE_INBOX:-/var/run/llm-config-inbox}
program=${PROGRAM:-/usr/local/bin/llm-config-manager}

: "${POD_NAME:?is not set}" "${POD_DOMAIN:?is not set}" "${FOUNDERS:?is not set}" "${INITIAL_CLUSTER:?is not set}" "${JOIN_URL:?is not set}"

ordinal=${POD_NAME##*-}
[ "$ordinal" != "$POD_NAME" ] || fail "POD_NAME '$POD_NAME' has no ordinal"
number "the ordinal in POD_NAME" "$ordinal"
number FOUNDERS "$FOUNDERS"

# Lines of ORDINAL=GENERATION; a pod that is not listed is on its first disk.
generation=0
[ -r "$disks" ] || fail "$disks cannot be read"
while IFS='=' read -r of value || [ -n "$of" ]; do
    if [ "$of" = "$ordinal" ]; then
        generation=$value
    fi
done <"$disks"
number "the generation of pod $ordinal in $disks" "$generation"

node_id=$((ordinal + 1 + 100 * generation))
host=$POD_NAME.$POD_DOMAIN

founder=no
if [ "$generation" -eq 0 ] && [ "$ordinal" -lt "$FOUNDERS" ]; then
    founder=yes
fi

# Waits for a file and restores it, on a disk that holds nothing yet; does nothing on any other.
restore() {
    : "${RESTORE_FILE:?is not set}" "${RESTORE_TOKEN:?is not set}"
    if [ "$founder" = no ]; then
        echo "start.sh: pod $ordinal is no founder; it joins the restored cluster later"
        exit 0
    fi
    # Beside the data, and written before the data: whose restore this disk belongs to.
    begun=$inbox/restore-token
    if [ ! -e "$begun" ] || [ "$(cat "$begun")" != "$RESTORE_TOKEN" ]; then
        if [ -e "$data_dir/identity" ]; then
            echo "start.sh: $data_dir holds a node that this restore has not made; delete the claim data-$POD_NAME" \
                "to give it up, or set restore.file to nothing to keep it" >&2
            exit 3
        fi
    elif [ -e "$data_dir/identity" ]; then
        echo "start.sh: $data_dir is restored already"
        exit 0
    fi
    waited=0
    while [ ! -e "$inbox/$RESTORE_FILE" ]; do
        [ "$waited" -lt "${RESTORE_WAIT_SECONDS:-3600}" ] ||
            fail "$inbox/$RESTORE_FILE did not arrive; this init container starts again and goes on waiting"
        [ $((waited % 60)) -ne 0 ] ||
            echo "start.sh: waiting for $inbox/$RESTORE_FILE; copy it there as docs/operations/kubernetes.md says"
        sleep 1
        waited=$((waited + 1))
    done
    printf '%s' "$RESTORE_TOKEN" >"$begun.tmp"
    mv "$begun.tmp" "$begun"
    "$program" restore "$inbox/$RESTORE_FILE" --data-dir "$data_dir" --node-id "$node_id" \
        --initial-cluster "$INITIAL_CLUSTER" --cluster-token "$RESTORE_TOKEN"
    rm -f "$inbox/$RESTORE_FILE"
    exit 0
}

case ${1:-serve} in
restore) restore ;;
serve) ;;
*) fail "unknown argument '$1'" ;;
esac

if [ "$founder" = yes ]; then
    set -- --initial-cluster "$INITIAL_CLUSTER"
else
    set -- --join "$JOIN_URL"
fi
# A certificate towards the other nodes names its node, so the id says which of those in the Secret is this one's.
tls=${RAFT_TLS_DIR:-}
if [ -n "$tls" ]; then
    for file in "$tls/node-$node_id.crt" "$tls/node-$node_id.key" "$tls/ca.crt"; do
        [ -r "$file" ] || fail "there is no $file: add it to the Secret that raftTls.secret names"
    done
    set -- "$@" --raft-tls-cert "$tls/node-$node_id.crt" --raft-tls-key "$tls/node-$node_id.key" \
        --raft-tls-ca "$tls/ca.crt"
fi
# shellcheck disable=SC2086 # SERVE_ARGS is a list of flags, for the tests.
exec "$program" serve --config "$config" --node-id "$node_id" --data-dir "$data_dir" \
    --advertise-http "$host:8080" --advertise-grpc "$host:50051" --advertise-raft "$host:50061" "$@" ${SERVE_ARGS:-}
