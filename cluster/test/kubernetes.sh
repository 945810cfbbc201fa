#!/usr/bin/env bash
# Checks the Helm chart and the manifests made from it, without a Kubernetes cluster: `make kubernetes-test`.
# LLM_CONFIG_SERVER names the program whose word counts on flags and configuration files.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
chart=cluster/helm/llm-config-manager
: "${LLM_CONFIG_SERVER:?must name the program llm-config-manager; \`make kubernetes-test\` builds and names it}"

bin=$(cluster/test/tools.sh)
export HELM=${HELM:-$bin/helm} KUBECTL=${KUBECTL:-$bin/kubectl}
export PYTHONDONTWRITEBYTECODE=1

echo "==> scripts"
"$bin/shellcheck" --shell=sh "$chart"/files/*.sh
"$bin/shellcheck" cluster/test/*.sh

echo "==> values"
"$bin/check-jsonschema" --check-metaschema "$chart/values.schema.json"
"$bin/check-jsonschema" --schemafile "$chart/values.schema.json" "$chart/values.yaml"

echo "==> chart"
"$HELM" lint --quiet --strict "$chart"

echo "==> manifests"
"$KUBECTL" kustomize cluster/kubernetes >/dev/null
"$KUBECTL" kustomize cluster/kubernetes/monitoring >/dev/null
"$bin/python" cluster/test/kubernetes_test.py
