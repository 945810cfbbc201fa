#!/bin/sh
# One backup of the cluster onto the backup volume; when it is complete, the oldest ones beyond the limit are deleted.
# `llm-config backup create` gives the file its name only when it is checked and durable. Names sort newest first, as
# those of the nodes' own backups.
set -eu

: "${LLM_CONFIG_ENDPOINTS:?is not set}" "${BACKUP_KEEP:?is not set}"
dir=${BACKUP_DIR:-/backups}
program=${PROGRAM:-/usr/local/bin/llm-config}

case $BACKUP_KEEP in
'' | *[!0-9]* | 0*)
    echo "backup.sh: BACKUP_KEEP is '$BACKUP_KEEP', which is no number from 1 up" >&2
    exit 2
    ;;
esac

# What a run that was killed left behind; runs never overlap (concurrencyPolicy: Forbid).
rm -f "$dir"/.llm-config-backup-*

seconds=$(date -u +%s)
file=$dir/$((9999999999 - seconds))-$(date -u -d "@$seconds" +%Y%m%dT%H%M%SZ).backup
"$program" --timeout 3600 backup create "$file"
[ -s "$file" ] || {
    echo "backup.sh: there is no $file after the backup" >&2
    exit 1
}
echo "backup.sh: wrote $file"

kept=0
for file in "$dir"/[0-9]*.backup; do
    kept=$((kept + 1))
    if [ "$kept" -gt "$BACKUP_KEEP" ]; then
        rm -f "$file"
        echo "backup.sh: deleted $file"
    fi
done
