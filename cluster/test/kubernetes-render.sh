#!/usr/bin/env bash
# Writes the chart's default rendering as plain manifests: kubernetes-render.sh FOLDER.
# `make kubernetes-fix` does it to cluster/kubernetes; the test does it elsewhere and compares.
set -euo pipefail
out=${1:?a folder to write into}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=$("$root/cluster/test/tools.sh")
helm=${HELM:-$bin/helm}
mkdir -p "$out"
rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT

"$helm" template llm-config-manager "$root/cluster/helm/llm-config-manager" --namespace llm-config --skip-tests \
    --set monitoring.serviceMonitor.enabled=true --set monitoring.prometheusRule.enabled=true \
    --output-dir "$rendered" >/dev/null

# plain FILE: without Helm's marks, under a line that says where it comes from.
plain() {
    echo "# Written by \`make kubernetes-fix\` from cluster/helm/llm-config-manager; change it there."
    sed -e '/^# Source: /d' -e 's|managed-by: Helm$|managed-by: kubectl|' -e '1{/^---$/d}' -e 's/[[:space:]]*$//' "$1"
}

rm -rf "$out/monitoring" "$out"/*.yaml
mkdir -p "$out/monitoring"
for file in "$rendered"/llm-config-manager/templates/*.yaml; do
    name=$(basename "$file")
    case $name in
    servicemonitor.yaml | prometheusrule.yaml) plain "$file" >"$out/monitoring/$name" ;;
    *) plain "$file" >"$out/$name" ;;
    esac
done

cat >"$out/namespace.yaml" <<'YAML'
# Written by `make kubernetes-fix`. Pods here meet the strictest of Kubernetes' own security standards.
apiVersion: v1
kind: Namespace
metadata:
  name: llm-config
  labels:
    app.kubernetes.io/name: llm-config-manager
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/warn: restricted
YAML

# kustomization FOLDER COMMENT
kustomization() {
    {
        echo "# Written by \`make kubernetes-fix\`. $2"
        printf 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n'
        (cd "$1" && printf '  - %s\n' *.yaml)
    } >"$1/.kustomization"
    mv "$1/.kustomization" "$1/kustomization.yaml"
}
kustomization "$out" "Apply with: kubectl apply -k cluster/kubernetes"
kustomization "$out/monitoring" "For clusters with the Prometheus operator: kubectl apply -k cluster/kubernetes/monitoring"
