#!/usr/bin/env bash
# Python's gRPC, from PyPI, in the cache: for the test whose client is written in another language. The one line on standard
# output is the interpreter that has it.
set -euo pipefail

GRPC_VERSION=1.85.1

cache=${XDG_CACHE_HOME:-$HOME/.cache}/distillery
home=$cache/grpc-$GRPC_VERSION

say() { printf 'grpc: %s\n' "$*" >&2; }

mkdir -p "$cache"
# Two calls at the same time must not build the environment twice, one over the other.
exec 9>"$cache/grpc.lock"
if command -v flock >/dev/null; then flock 9; fi
if [[ -f $home/installed ]]; then
    say "found in $home"
else
    say "installing grpcio $GRPC_VERSION into $home"
    rm -rf "$home"
    "${PYTHON:-python3}" -m venv "$home"
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check "grpcio==$GRPC_VERSION" \
        "grpcio-tools==$GRPC_VERSION" "grpcio-reflection==$GRPC_VERSION" >&2
    : >"$home/installed"
fi
printf '%s\n' "$home/bin/python"
