#!/usr/bin/env bash
# What tests/browser looks with: Chromium from Debian, and axe-core from npm. Run again, it does nothing.
set -euo pipefail
cd "$(dirname "$0")"

AXE_VERSION=4.14.1
CACHE=$PWD/.cache/browser

if ! command -v chromium > /dev/null; then
  { apt-get update -q && apt-get install -y -q --no-install-recommends chromium fonts-dejavu-core; } > /dev/null ||
    echo "MISSING: chromium. The tests of the pages in a browser will be skipped." >&2
fi

if [ "$(cat "$CACHE/.complete" 2> /dev/null)" != "$AXE_VERSION" ]; then
  rm -rf "$CACHE"
  mkdir -p "$CACHE"
  if npm install --prefix "$CACHE" --no-audit --no-fund --ignore-scripts --loglevel=error "axe-core@$AXE_VERSION" > /dev/null; then
    echo "$AXE_VERSION" > "$CACHE/.complete"
  else
    echo "MISSING: axe-core. The tests of the pages in a browser will be skipped." >&2
  fi
fi
