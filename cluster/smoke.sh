#!/usr/bin/env bash
# Runs the README's commands, word for word, against a running `make run`, so that the first page cannot rot.
#
# A block of the README takes part when the line before it is a comment such as
#     <!-- smoke: expect="some text" exit=28 -->
# Its output must hold the text, and it must end with that exit code (0 when none is given).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readme="${1:-README.md}"
health="http://localhost:8080/health"
if ! curl -fsS -o /dev/null --max-time 5 "$health"; then
    echo "smoke: $health does not answer 200: start \`make run\` in another terminal first" >&2
    exit 2
fi

failed=0 passed=0
check() {
    local expect=$1 exit_code=$2 block=$3 output status=0
    output=$(timeout 60 bash -euo pipefail -c "$block" 2>&1) || status=$?
    if [[ $status -eq $exit_code && $output == *"$expect"* ]]; then
        passed=$((passed + 1))
        return
    fi
    failed=$((failed + 1))
    printf 'smoke: this block of %s ended with %d, expected %d and a text with %q:\n%s\nIt printed:\n%s\n\n' \
        "$readme" "$status" "$exit_code" "$expect" "$block" "$output" >&2
}

block="" marked=0 inside=0
while IFS= read -r line; do
    if [[ $line =~ ^'<!-- smoke:'(.*)'-->'$ ]]; then
        marked=1 options=${BASH_REMATCH[1]}
    elif ((marked && !inside)) && [[ $line == '```sh' ]]; then
        inside=1 block=""
    elif ((inside)) && [[ $line == '```' ]]; then
        expect="" exit_code=0
        if [[ $options =~ expect=\"([^\"]*)\" ]]; then expect=${BASH_REMATCH[1]}; fi
        if [[ $options =~ exit=([0-9]+) ]]; then exit_code=${BASH_REMATCH[1]}; fi
        check "$expect" "$exit_code" "$block"
        inside=0 marked=0
    elif ((inside)); then
        block+="$line"$'\n'
    fi
done <"$readme"

if ((passed + failed == 0)); then
    echo "smoke: $readme has no block marked for this test" >&2
    exit 1
fi
echo "smoke: $passed passed, $failed failed"
((failed == 0))
