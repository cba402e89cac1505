#!/usr/bin/env bash
# An S3-compatible server for tests: moto, from PyPI, in the cache.
#
#   scripts/s3.sh                          fetch it where it is missing, and stop
#   scripts/s3.sh --port 9000              fetch it where it is missing, then serve on 127.0.0.1
set -euo pipefail

MOTO_VERSION=5.2.5

cache=${XDG_CACHE_HOME:-$HOME/.cache}/distillery
home=$cache/s3-$MOTO_VERSION

say() { printf 's3: %s\n' "$*" >&2; }

mkdir -p "$cache"
# Two calls at the same time must not build the environment twice, one over the other.
exec 9>"$cache/s3.lock"
if command -v flock >/dev/null; then flock 9; fi
if [[ -f $home/installed ]]; then
    say "found in $home"
else
    say "installing moto $MOTO_VERSION into $home"
    rm -rf "$home"
    "${PYTHON:-python3}" -m venv "$home"
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check "moto[s3,server]==$MOTO_VERSION" >&2
    : >"$home/installed"
fi
exec 9>&-

if [[ ${1:-} == --port ]]; then
    exec "$home/bin/moto_server" -H 127.0.0.1 -p "$2"
fi
