#!/usr/bin/env bash
# The rerank clients that tests/clients drives, each in an environment of its own, for they do not agree on versions.
# Run again, it does nothing: an environment is made anew only when its list of requirements changes.
set -euo pipefail
cd "$(dirname "$0")"

UV_VERSION=0.13.9
OPEN_WEBUI_VERSION=0.12.4
CACHE=$PWD/.cache/clients
LISTS=$PWD/../clients/requirements
PYTHON=$PWD/../../.venv-test/bin/python
[ -x "$PYTHON" ] || PYTHON=python3
export UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_NO_PROGRESS=1

mkdir -p "$CACHE"
tools=$CACHE/.tools
if [ "$(cat "$tools/.complete" 2> /dev/null)" != "$UV_VERSION" ]; then
  rm -rf "$tools"
  "$PYTHON" -m venv "$tools"
  "$tools/bin/python" -m pip --disable-pip-version-check --quiet install "uv==$UV_VERSION"
  echo "$UV_VERSION" > "$tools/.complete"
fi

# make NAME: the lists are complete, hence --no-deps
make() {
  local folder=$CACHE/$1
  rm -rf "$folder"
  "$tools/bin/uv" venv --quiet --python "$PYTHON" "$folder" &&
    "$tools/bin/uv" pip install --quiet --no-deps --python "$folder/bin/python" -r "$LISTS/$1.txt"
}

# Of Open WebUI only the files that ask for a ranking: the whole of it is gigabytes with what it needs.
take_open_webui() {
  local folder=$CACHE/open_webui wheel=$CACHE/open_webui/wheel
  "$tools/bin/python" -m pip --disable-pip-version-check --quiet download --no-deps --no-cache-dir \
    --dest "$wheel" "open-webui==$OPEN_WEBUI_VERSION" &&
    "$tools/bin/python" - "$wheel" "$folder/source" << 'PYTHON' &&
import sys, zipfile
from pathlib import Path

with zipfile.ZipFile(next(Path(sys.argv[1]).glob("*.whl"))) as wheel:
    for name in wheel.namelist():
        if name.endswith("licenses/LICENSE") or name in {
            "open_webui/env.py",
            "open_webui/utils/headers.py",
            "open_webui/retrieval/models/base_reranker.py",
            "open_webui/retrieval/models/external.py",
        }:
            wheel.extract(name, sys.argv[2])
PYTHON
    rm -rf "$wheel"
}

for list in "$LISTS"/*.txt; do
  name=$(basename "$list" .txt)
  mark=$CACHE/$name/.complete
  state=$(cat "$list" <(echo "$PYTHON $("$PYTHON" -V) $OPEN_WEBUI_VERSION") | sha256sum)
  [ "$(cat "$mark" 2> /dev/null)" = "$state" ] && continue
  if make "$name" && { [ "$name" != open_webui ] || take_open_webui; }; then
    echo "$state" > "$mark"
  else
    echo "MISSING: the client $name. Its tests will be skipped." >&2
  fi
done
