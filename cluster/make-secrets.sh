#!/usr/bin/env bash
# Makes what a cluster with authentication needs before it is founded: the first admin token and the master key.
#
#   cluster/make-secrets.sh [FOLDER]     FOLDER is cluster/secrets when none is given
#
# Both are files with mode 0600. What is there already is never changed: a new master key in the place of the old one would
# make every secret unreadable. All nodes of a cluster get the same two files. Keep a copy of the master key apart from the
# backups: they hold secrets only encrypted, and are worth as much as the key that is kept with them.
#
# Containers run as user 10001 and must be able to read the files: run as root, the script gives them to that user; OWNER
# names another one (OWNER=root for systemd, which passes them on by itself).
set -euo pipefail

folder=${1:-$(dirname "${BASH_SOURCE[0]}")/secrets}
owner=${OWNER:-10001}
umask 077
mkdir -p "$folder"

# random BYTES
random() { head -c "$1" /dev/urandom | base64 -w 0; }
# Base64 for URLs, without padding, as the store writes its own tokens.
words() { random "$1" | tr '+/' '-_' | tr -d '='; }

# make NAME TEXT
make() {
    local file=$folder/$1
    if [[ -e $file ]]; then
        echo "make-secrets: $file is there and stays as it is" >&2
        return
    fi
    # By rename, so that a file is either whole or not there.
    printf '%s\n' "$2" >"$file.new"
    if ((EUID == 0)); then
        chown "$owner" "$file.new"
    fi
    mv "$file.new" "$file"
    echo "make-secrets: made $file" >&2
}

make bootstrap-token "lcm_$(words 9)_$(words 32)"
make master-key "$(random 32)"
if ((EUID != 0)); then
    echo "make-secrets: for containers, run: sudo chown $owner $folder/bootstrap-token $folder/master-key" >&2
fi
