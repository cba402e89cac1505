#!/usr/bin/env bash
# What looks at the page of jobs: a browser, which is Debian's Chromium where the machine has none, and from npm its driver and the
# rules of accessibility (axe), in the cache.
#
#   scripts/browser-tools.sh                install what is missing; prints the folder of the packages
set -euo pipefail

PUPPETEER_VERSION=24.8.2
AXE_VERSION=4.14.1

cache=${XDG_CACHE_HOME:-$HOME/.cache}/distillery
home=$cache/browser-$PUPPETEER_VERSION-$AXE_VERSION

say() { printf 'browser-tools: %s\n' "$*" >&2; }

# A machine without a browser for which none can be installed skips the test, which says so.
install_browser() {
    command -v chromium >/dev/null && return
    if ! command -v apt-get >/dev/null; then
        say "there is no chromium on PATH, and no apt-get: the page of jobs will not be looked at"
        return
    fi
    local as_root=()
    ((EUID)) && as_root=(sudo)
    say "installing Debian's chromium"
    local install=("${as_root[@]}" apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core)
    if ! "${install[@]}" >&2; then
        "${as_root[@]}" apt-get update -qq >&2
        "${install[@]}" >&2 || say "chromium cannot be installed: the page of jobs will not be looked at"
    fi
}

mkdir -p "$cache"
# Concurrent calls install once.
exec 9>"$cache/browser.lock"
if command -v flock >/dev/null; then flock 9; fi
install_browser
if [[ -f $home/installed ]]; then
    say "found in $home"
else
    rm -rf "$home"
    mkdir -p "$home"
    # Node and npm are those of the tools that check dashboards.
    PATH=$("$(dirname "${BASH_SOURCE[0]}")/watch-tools.sh")/bin:$PATH
    say "installing puppeteer-core $PUPPETEER_VERSION and axe-core $AXE_VERSION into $home"
    npm install --prefix "$home" --silent --no-audit --no-fund --ignore-scripts \
        "puppeteer-core@$PUPPETEER_VERSION" "axe-core@$AXE_VERSION" >&2
    : >"$home/installed"
fi
printf '%s\n' "$home"
