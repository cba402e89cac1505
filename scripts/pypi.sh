#!/usr/bin/env bash
# Install pinned packages from PyPI into a cached virtual environment, once.
#
#   scripts/pypi.sh NAME PACKAGE==VERSION ...    prints the environment's folder on standard output
#
# Environments are kept under ${XDG_CACHE_HOME:-$HOME/.cache}/distillery. Other versions get another folder, so two
# checkouts with different pins do not disturb each other.
set -euo pipefail

name=$1
shift
cache=${XDG_CACHE_HOME:-$HOME/.cache}/distillery
home=$cache/$name-$(printf '%s\n' "$@" | sha256sum | head -c 12)

say() { printf '%s: %s\n' "$name" "$*" >&2; }

mkdir -p "$cache"
# Concurrent calls install once.
exec 9>"$home.lock"
if command -v flock >/dev/null; then flock 9; fi
if [[ -f $home/installed && -x $home/bin/python ]]; then
    say "found in $home"
else
    say "installing $* into $home"
    # A partial environment is unusable, and one made by another Python may not run.
    rm -rf "$home"
    "${PYTHON:-python3}" -m venv "$home" || { say "python3 -m venv failed; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check "$@" >&2
    : >"$home/installed"
fi
printf '%s\n' "$home"
