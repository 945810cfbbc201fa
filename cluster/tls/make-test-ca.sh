#!/usr/bin/env bash
# Makes an authority and certificates for trying out TLS. Not for production: the authority's key lies beside them.
#
#   cluster/tls/make-test-ca.sh DIR [--nodes 1,2,3] [--host NAME|IP]... [--client NAME]... [--days N]
#
# Into DIR go, each NAME.pem with its key NAME-key.pem:
#   ca        the authority; one that is there already is used again, so that a later call adds nodes and clients
#   node-N    for --raft-tls-cert of node N: the DNS name node-N.llm-config, and the hosts
#   server    for --tls-cert of every node: the hosts
#   NAME      for each --client: what a client shows; its common name is NAME
# The hosts are localhost, 127.0.0.1, ::1 and what --host adds. Certificates that are there are replaced, each file in
# one step; running nodes take them up by themselves.
set -euo pipefail

fail() {
    echo "make-test-ca: $*" >&2
    exit 2
}

usage() {
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    usage
    exit 0
fi
if (($# == 0)); then
    usage >&2
    exit 2
fi
[[ $1 != -* ]] || fail "the first argument is the folder for the certificates; --help says more"
dir=$1
shift
nodes="1,2,3" days=825 hosts=(localhost 127.0.0.1 ::1) clients=()
while (($# > 0)); do
    option=$1
    case "$option" in
    --nodes | --host | --client | --days) ;;
    *) fail "unknown option '$option'; --help lists them" ;;
    esac
    value=${2:-}
    [[ -n $value ]] || fail "$option needs a value"
    case "$option" in
    --nodes) nodes=$value ;;
    --host) hosts+=("$value") ;;
    --client) clients+=("$value") ;;
    --days) days=$value ;;
    esac
    shift 2
done
[[ $nodes =~ ^[1-9][0-9]*(,[1-9][0-9]*)*$ ]] || fail "--nodes '$nodes': give node ids, such as 1,2,3"
[[ $days =~ ^[1-9][0-9]{0,4}$ ]] || fail "--days '$days': give a number of days"
for host in "${hosts[@]}"; do
    [[ $host =~ ^[A-Za-z0-9.:*-]+$ ]] || fail "--host '$host': give a host name or an address, without a port"
done
for client in "${clients[@]}"; do
    [[ $client =~ ^[A-Za-z0-9._-]+$ ]] || fail "--client '$client': use letters, digits, '.', '_' and '-'"
    [[ ! $client =~ ^(ca|server|node-[0-9]+|.*-key)$ ]] || fail "--client '$client': the name is taken, give another"
done
command -v openssl >/dev/null || fail "openssl is missing: install the package of that name"

# Keys are for their owner only, from the first byte on.
umask 077
mkdir -p "$dir"
work=$(mktemp -d "$dir/.make-test-ca.XXXXXX")
trap 'rm -rf "$work"' EXIT

# The system's openssl.cnf may say anything; nothing of it is used.
printf '[req]\ndistinguished_name = name\n[name]\n' >"$work/openssl.cnf"

new_key() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null
}

# The key first: a certificate is looked at together with it, and one that does not fit yet is tried again.
publish() {
    chmod 0644 "$work/$1.pem"
    mv -f "$work/$1-key.pem" "$dir/$1-key.pem"
    mv -f "$work/$1.pem" "$dir/$1.pem"
}

# A host as a subject alternative name.
alternative() {
    if [[ $1 == *:* || $1 =~ ^[0-9.]+$ ]]; then echo "IP:$1"; else echo "DNS:$1"; fi
}

# issue NAME COMMON_NAME USAGE [ALTERNATIVE]...
issue() {
    local name=$1 common_name=$2 usage=$3 names
    shift 3
    {
        echo "basicConstraints = critical, CA:FALSE"
        echo "keyUsage = critical, digitalSignature"
        echo "extendedKeyUsage = $usage"
        if (($# > 0)); then
            printf -v names ',%s' "$@"
            echo "subjectAltName = ${names:1}"
        fi
    } >"$work/extensions"
    new_key "$work/$name-key.pem"
    openssl req -new -config "$work/openssl.cnf" -key "$work/$name-key.pem" -subj "/CN=$common_name" \
        -out "$work/request"
    openssl x509 -req -in "$work/request" -CA "$dir/ca.pem" -CAkey "$dir/ca-key.pem" -days "$days" -sha256 \
        -set_serial "0x01$(openssl rand -hex 15)" -extfile "$work/extensions" -out "$work/$name.pem" 2>/dev/null
    publish "$name"
}

if [[ ! -f $dir/ca-key.pem || ! -f $dir/ca.pem ]]; then
    printf '[ca]\n%s\n%s\n%s\n' "basicConstraints = critical, CA:TRUE" \
        "keyUsage = critical, keyCertSign, cRLSign" "subjectKeyIdentifier = hash" >>"$work/openssl.cnf"
    new_key "$work/ca-key.pem"
    openssl req -x509 -new -config "$work/openssl.cnf" -extensions ca -key "$work/ca-key.pem" -sha256 -days 3650 \
        -subj "/CN=llm-config test authority" -set_serial "0x01$(openssl rand -hex 15)" -out "$work/ca.pem"
    publish ca
fi

alternatives=()
for host in "${hosts[@]}"; do
    alternatives+=("$(alternative "$host")")
done
for id in ${nodes//,/ }; do
    issue "node-$id" "node $id" "serverAuth, clientAuth" "DNS:node-$id.llm-config" "${alternatives[@]}"
done
issue server "llm-config test server" serverAuth "${alternatives[@]}"
for client in "${clients[@]}"; do
    issue "$client" "$client" clientAuth
done
echo "certificates are in $dir; clients need $dir/ca.pem"
