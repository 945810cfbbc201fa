#!/bin/sh
# Prints alertmanager.yml with a channel under each receiver for which a folder has a file:
#
#   configure.sh FOLDER >CONFIGURATION
#
#   RECEIVER.webhook-url      an address that is sent JSON (a service for on-call, for chat, for logs, a dead man's switch)
#   RECEIVER.pagerduty-key    a routing key of PagerDuty's Events API v2
#   RECEIVER.slack-url        an incoming webhook of Slack, or of a chat that takes the same messages
#   RECEIVER.mail-to          addresses, with commas between them; mail needs smtp-smarthost (HOST:PORT) and smtp-from,
#                             and may have smtp-username, smtp-password and smtp-require-tls (true, or false)
#
# RECEIVER is a name in alertmanager.yml: pager, team, mail, log, quiet-hours, watchdog. Each may have several channels; one
# without any tells nobody. Keys and passwords stay in their files, which Alertmanager reads itself, at each message; webhook
# addresses are copied, because Alertmanager 0.25 has no setting for a file of those: keep what is printed private, and run
# this again when one changes. A file that is none of these is a mistake, and ends it.
#
# It needs nothing but a shell, for it runs in Alertmanager's own image.
set -eu
umask 077
base=$(dirname "$0")/alertmanager.yml
folder=${1:?a folder with a file for each channel}

fail() {
    echo "configure.sh: $*" >&2
    exit 1
}

# value FILE: its one line, as a YAML string.
value() {
    line=
    { IFS= read -r line || [ -n "$line" ]; } <"$folder/$1" || fail "$folder/$1 is empty"
    quoted=
    while :; do
        case $line in
        *"'"*) quoted="$quoted${line%%"'"*}''" line=${line#*"'"} ;;
        *) break ;;
        esac
    done
    printf "'%s'" "$quoted$line"
}

# channels RECEIVER
channels() {
    resolved=true
    # It is the sign of life that counts.
    [ "$1" != watchdog ] || resolved=false
    if [ -f "$folder/$1.webhook-url" ]; then
        url=$(value "$1.webhook-url")
        printf '    webhook_configs:\n      - url: %s\n        send_resolved: %s\n' "$url" "$resolved"
    fi
    if [ -f "$folder/$1.pagerduty-key" ]; then
        cat <<YAML
    pagerduty_configs:
      - routing_key_file: $folder/$1.pagerduty-key
        description: '{{ .CommonLabels.alertname }} on {{ .CommonLabels.cluster }}: {{ .CommonAnnotations.summary }}'
        severity: '{{ .CommonLabels.severity }}'
        send_resolved: $resolved
YAML
    fi
    if [ -f "$folder/$1.slack-url" ]; then
        cat <<YAML
    slack_configs:
      - api_url_file: $folder/$1.slack-url
        title: '{{ .Status }}: {{ .CommonLabels.alertname }} on {{ .CommonLabels.cluster }}'
        text: "{{ range .Alerts }}*{{ .Annotations.summary }}*\n{{ .Annotations.description }}\n{{ .Annotations.runbook_url }}\n{{ end }}"
        send_resolved: $resolved
YAML
    fi
    if [ -f "$folder/$1.mail-to" ]; then
        for setting in smtp-smarthost smtp-from; do
            [ -f "$folder/$setting" ] || fail "$folder/$1.mail-to needs $setting beside it"
        done
        to=$(value "$1.mail-to")
        from=$(value smtp-from)
        smarthost=$(value smtp-smarthost)
        printf '    email_configs:\n      - to: %s\n        from: %s\n        smarthost: %s\n        send_resolved: %s\n' \
            "$to" "$from" "$smarthost" "$resolved"
        if [ -f "$folder/smtp-username" ]; then
            [ -f "$folder/smtp-password" ] || fail "$folder/smtp-username needs smtp-password beside it"
            username=$(value smtp-username)
            printf '        auth_username: %s\n        auth_password_file: %s\n' "$username" "$folder/smtp-password"
        fi
        if [ -f "$folder/smtp-require-tls" ]; then
            IFS= read -r tls <"$folder/smtp-require-tls" || :
            case $tls in true | false) printf '        require_tls: %s\n' "$tls" ;; *) fail "$folder/smtp-require-tls is neither true nor false" ;; esac
        fi
    fi
}

# The last list of names in the file is that of the receivers.
receivers=
while IFS= read -r line; do
    case $line in 'receivers:') receivers= ;; '  - name: '*) receivers="$receivers ${line#  - name: }" ;; esac
done <"$base"

for file in "$folder"/*; do
    [ -e "$file" ] || continue # nothing in it
    name=${file##*/}
    known=
    case $name in smtp-smarthost | smtp-from | smtp-username | smtp-password | smtp-require-tls) known=1 ;; esac
    for receiver in $receivers; do
        case $name in "$receiver".webhook-url | "$receiver".pagerduty-key | "$receiver".slack-url | "$receiver".mail-to) known=1 ;; esac
    done
    [ -n "$known" ] || fail "$file is for no receiver of $base"
    [ -r "$file" ] || fail "$file cannot be read by user $(id -u)"
done

silent=
inside=
while IFS= read -r line; do
    printf '%s\n' "$line"
    case $line in
    receivers:) inside=1 ;;
    '  - name: '*)
        [ -n "$inside" ] || continue
        under=$(channels "${line#  - name: }")
        if [ -n "$under" ]; then
            printf '%s\n' "$under"
        else
            silent="$silent ${line#  - name: }"
        fi
        ;;
    esac
done <"$base"
[ -z "$silent" ] || echo "configure.sh: $folder has no file for$silent: they tell nobody" >&2
