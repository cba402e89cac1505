#!/usr/bin/env bash
# Sees that the programs of PostgreSQL and Redis are on this machine, because the tests start servers of their own.
#
#   scripts/services.sh
#
# What is absent is installed with apt; what is there already is used, and nothing is done. No service of the system is
# started or enabled, no cluster is made, and one that runs is left alone: the tests' servers are private, on free ports,
# in temporary folders.
set -euo pipefail

POSTGRES_OLDEST=14
REDIS_OLDEST=7

say() { printf 'services: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# The folder with PostgreSQL's programs, the newest version first; Debian keeps them off the path.
postgres_folder() {
    local found
    found=$(find /usr/lib/postgresql -maxdepth 3 -path '*/bin/initdb' 2>/dev/null | sort -rV | head -n 1)
    [[ -n $found ]] || found=$(command -v initdb || true)
    [[ -n $found ]] && dirname "$found"
}

# The major version in the first line of what a program says.
major() { "$@" | head -n 1 | grep -oE '[0-9]+(\.[0-9]+)+' | head -n 1 | cut -d . -f 1; }

absent=()
postgres_folder >/dev/null || absent+=(postgresql)
command -v redis-server >/dev/null || absent+=(redis-server)

if ((${#absent[@]})); then
    command -v apt-get >/dev/null ||
        fail "install PostgreSQL $POSTGRES_OLDEST or newer and Redis $REDIS_OLDEST or newer, and put initdb, postgres and redis-server on the path"
    as_root=()
    if ((EUID)); then
        command -v sudo >/dev/null || fail "run it as root, or install them yourself: apt-get install ${absent[*]}"
        as_root=(sudo)
    fi
    say "installing ${absent[*]}"
    # The packages would make a cluster and start services. Debian asks this program first; one that is there stays.
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
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends "${absent[@]}" >/dev/null
    "${as_root[@]}" rm "$clusters/distillery.conf"
    # They were enabled all the same, for the next start of the machine.
    for name in "${absent[@]}"; do
        "${as_root[@]}" update-rc.d "$name" disable >/dev/null 2>&1 || true
        "${as_root[@]}" find /etc/systemd/system -type l -lname "*/$name.service" -delete 2>/dev/null || true
    done
fi

folder=$(postgres_folder) || fail "PostgreSQL was installed, and its initdb is nowhere"
postgres=$(major "$folder/postgres" --version)
redis=$(major redis-server --version)
((postgres >= POSTGRES_OLDEST)) || fail "$folder has PostgreSQL $postgres; the tests need $POSTGRES_OLDEST or newer"
((redis >= REDIS_OLDEST)) || fail "redis-server has version $redis; the tests need $REDIS_OLDEST or newer"
say "PostgreSQL $postgres in $folder, Redis $redis in $(command -v redis-server)"
