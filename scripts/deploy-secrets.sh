#!/usr/bin/env bash
# Makes the passwords and tokens that a deployment needs, one a file, at random.
#
#   scripts/deploy-secrets.sh [FOLDER]       FOLDER is deploy/secrets, which git ignores
#
# docker-compose.yml reads the files where they lie; deploy/README.md says how a cluster gets them. What is there already
# stays as it is, so that a second call changes nothing: the database keeps the password that it was made with.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Where the addresses in the files lead: the names of the services in docker-compose.yml and in deploy/kubernetes/overlays/local.
POSTGRES=postgres:5432
REDIS=redis:6379
LENGTH_BYTES=24

say() { printf 'deploy-secrets: %s\n' "$*" >&2; }

folder=${1:-deploy/secrets}
# Nobody else on this machine enters the folder. The files in it can be read by all: in a container, the service that a
# file is mounted into runs as a user of its own.
mkdir -p "$folder"
chmod 700 "$folder"

random() { od -An -N "$LENGTH_BYTES" -tx1 /dev/urandom | tr -d ' \n'; }

# Writes standard input to a file that is not there yet.
keep() {
    local file=$folder/$1
    if [[ -s $file ]]; then
        cat >/dev/null
    else
        cat >"$file"
        chmod 644 "$file"
        say "made $file"
    fi
}

for name in postgres_password redis_password cli_token worker_token grafana_password reader_password; do
    random | keep "$name"
done
printf 'postgres://distillery:%s@%s/distillery' "$(<"$folder/postgres_password")" "$POSTGRES" | keep database_url
printf 'redis://default:%s@%s' "$(<"$folder/redis_password")" "$REDIS" | keep redis_url
# What is kept there may be lost at any instant: nothing is written to a disk, and nothing is dropped to make room.
printf 'requirepass %s\nsave ""\nappendonly no\nmaxmemory 512mb\nmaxmemory-policy noeviction\n' \
    "$(<"$folder/redis_password")" | keep redis_conf
say "they lie in $folder"
