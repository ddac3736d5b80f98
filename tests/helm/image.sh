#!/usr/bin/env bash
# Builds the image with buildah and runs it with podman as the chart does: read-only, no capabilities, no root. Needs
# root, installs what it lacks from Debian, and needs no registry: where PYTHON_IMAGE is not set, the base is a Debian
# made by debootstrap. BUILD_OPTIONS go to buildah (a mount with certificates, say). Takes some minutes; ends with 0
# where everything is as it should be.
#   tests/helm/image.sh [cpu|cuda]
set -euo pipefail
cd "$(dirname "$0")/../.."
missing=()
for program in buildah podman runc debootstrap; do
  command -v "$program" > /dev/null || [ -x "/usr/sbin/$program" ] || missing+=("$program")
done
if [ ${#missing[@]} -gt 0 ]; then
  apt-get update -qq && apt-get install -qq -y --no-install-recommends "${missing[@]}" > /dev/null
fi

target=${1:-cpu}
work=$(mktemp -d)
name=rerank-canary-image-test
export BUILDAH_ISOLATION=chroot
store=${IMAGE_STORE:-$PWD/tests/parts/.cache/images} # one of its own, so that no setting of the machine matters
storage=(--root "$store" --runroot "$store.run" --storage-driver "${STORAGE_DRIVER:-vfs}")
buildah() { command buildah "${storage[@]}" "$@"; }
podman() { command podman "${storage[@]}" "$@"; }
trap 'podman rm --force --time 1 "$name" > /dev/null 2>&1 || true; rm -rf "$work"' EXIT

step() { printf '\n== %s\n' "$*"; }

if [ -z "${PYTHON_IMAGE:-}" ]; then
  PYTHON_IMAGE=localhost/python-of-debian
  if ! buildah inspect --type image "$PYTHON_IMAGE" > /dev/null 2>&1; then
    step "a base by debootstrap"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$work/root" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" > "$work/debootstrap.log" || { tail -20 "$work/debootstrap.log"; exit 1; }
    base=$(buildah from scratch)
    buildah add --quiet "$base" "$work/root" / > /dev/null
    buildah commit --quiet "$base" "$PYTHON_IMAGE" > /dev/null
    buildah rm "$base" > /dev/null
    rm -rf "$work/root"
  fi
fi

step "build $target"
# shellcheck disable=SC2086 # options are words
buildah build --quiet --layers --ignorefile helm/Dockerfile.dockerignore --file helm/Dockerfile --target "$target" \
  --build-arg PYTHON_IMAGE="$PYTHON_IMAGE" ${BUILD_OPTIONS:-} --tag "localhost/rerank-canary:$target" .
buildah inspect --type image --format 'user {{.OCIv1.Config.User}}, entry {{.OCIv1.Config.Entrypoint}}' "localhost/rerank-canary:$target"
podman image ls --format '{{.Repository}}:{{.Tag}} {{.Size}}' "localhost/rerank-canary:$target"

install --directory --owner 10001 --group 10001 "$work/data"
chmod 711 "$work"
step "run: read-only, no capabilities, uid 10001"
podman run --detach --name "$name" --read-only --read-only-tmpfs=false --cap-drop=ALL --security-opt=no-new-privileges \
  --ulimit nofile=4096:4096 --ulimit nproc=1024:1024 --user 10001:10001 --network=host --tmpfs /tmp:rw,size=64m --volume "$work/data:/data" \
  --env RERANK_CANARY__AUTH__ALLOW_ANONYMOUS=true --env RERANK_CANARY__SERVER__HOST=127.0.0.1 \
  --env RERANK_CANARY__SERVER__PORT="${PORT:=18080}" --env RERANK_CANARY__SERVER__CONTROL_PORT="$((PORT + 1))" \
  --env RERANK_CANARY__SERVER__DRAIN_SECONDS=2 "localhost/rerank-canary:$target" > /dev/null
for _ in $(seq 150); do curl -sf "localhost:$PORT/readyz" > /dev/null && break; sleep 0.2; done
curl -sf "localhost:$PORT/readyz" > /dev/null || { podman logs "$name"; exit 1; }
pid=$(podman inspect --format '{{.State.Pid}}' "$name")
grep -E '^(Uid|CapEff|NoNewPrivs)' "/proc/$pid/status"
[ "$(awk '/^Uid/ {print $2}' "/proc/$pid/status")" != 0 ]
[ "$(awk '/^CapEff/ {print $2}' "/proc/$pid/status")" = 0000000000000000 ]
awk '$5 == "/" {print "the root file system is mounted " $6}' "/proc/$pid/mountinfo" | tee "$work/root"
grep -q 'mounted ro' "$work/root"

step "the README's curl"
curl -sf "localhost:$PORT/v1/rerank" -H 'X-User-Id: ada' -d '{
  "query": "how long does a worker bee live",
  "documents": ["Honey keeps for years in a closed jar.", "A worker bee lives about six weeks in summer."]}'
echo

step "SIGTERM with a request under way: it is answered, and the process ends in time"
curl -s -o "$work/late" -w '%{http_code}\n' "localhost:$PORT/v1/rerank" -H 'X-User-Id: bob' \
  -d '{"query": "worker bee", "documents": ["a jar", "a worker bee"]}' > "$work/code" &
asked=$!
sleep 0.3
began=$(date +%s%N)
podman kill --signal TERM "$name" > /dev/null
wait $asked
echo "the request was answered $(cat "$work/code")"
[ "$(cat "$work/code")" = 200 ]
podman wait "$name" > "$work/exit"
echo "exit code $(cat "$work/exit") after $((($(date +%s%N) - began) / 1000000)) ms"
[ "$(cat "$work/exit")" = 0 ]
