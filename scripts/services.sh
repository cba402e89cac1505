#!/usr/bin/env bash
# Ensure that the programs of PostgreSQL and Redis are installed: tests start private servers of their own.
#
#   scripts/services.sh
#
# Missing programs are installed with apt. No system service is started or enabled and no cluster is created; running ones
# are not touched. The tests' servers use free ports and temporary folders.
set -euo pipefail

POSTGRES_OLDEST=14
REDIS_OLDEST=7

say() { printf 'services: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# The folder with PostgreSQL's programs, newest version first. Debian does not put them on PATH.
postgres_folder() {
    local found
    found=$(find /usr/lib/postgresql -maxdepth 3 -path '*/bin/initdb' 2>/dev/null | sort -rV | head -n 1)
    [[ -n $found ]] || found=$(command -v initdb || true)
    [[ -n $found ]] && dirname "$found"
}

# The major version in the first line of a program's output.
major() { "$@" | head -n 1 | grep -oE '[0-9]+(\.[0-9]+)+' | head -n 1 | cut -d . -f 1; }

missing=()
postgres_folder >/dev/null || missing+=(postgresql)
command -v redis-server >/dev/null || missing+=(redis-server)

if ((${#missing[@]})); then
    command -v apt-get >/dev/null ||
        fail "install PostgreSQL $POSTGRES_OLDEST or newer and Redis $REDIS_OLDEST or newer, with initdb, postgres and redis-server on PATH"
    as_root=()
    if ((EUID)); then
        command -v sudo >/dev/null || fail "run as root, or install: apt-get install ${missing[*]}"
        as_root=(sudo)
    fi
    say "installing ${missing[*]}"
    # The packages would create a cluster and start services unless this program refuses. An existing one is kept.
    policy=/usr/sbin/policy-rc.d
    clusters=/etc/postgresql-common/createcluster.d
    if [[ ! -e $policy ]]; then
        trap '"${as_root[@]}" rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
        "${as_root[@]}" chmod 755 "$policy"
    fi
    "${as_root[@]}" mkdir -p "$clusters"
    printf 'create_main_cluster = false\n' | "${as_root[@]}" tee "$clusters/distillery.conf" >/dev/null
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends "${missing[@]}" >/dev/null
    "${as_root[@]}" rm "$clusters/distillery.conf"
    # Installation enabled them for the next boot.
    for name in "${missing[@]}"; do
        "${as_root[@]}" update-rc.d "$name" disable >/dev/null 2>&1 || true
        "${as_root[@]}" find /etc/systemd/system -type l -lname "*/$name.service" -delete 2>/dev/null || true
    done
fi

folder=$(postgres_folder) || fail "PostgreSQL is installed, but initdb was not found"
postgres=$(major "$folder/postgres" --version)
redis=$(major redis-server --version)
((postgres >= POSTGRES_OLDEST)) || fail "$folder has PostgreSQL $postgres; the tests need $POSTGRES_OLDEST or newer"
((redis >= REDIS_OLDEST)) || fail "redis-server has version $redis; the tests need $REDIS_OLDEST or newer"
say "PostgreSQL $postgres in $folder, Redis $redis in $(command -v redis-server)"
