#!/usr/bin/env bash
# Generate random passwords and tokens for a deployment, one per file.
#
#   scripts/deploy-secrets.sh [FOLDER]       FOLDER defaults to deploy/secrets, which git ignores
#
# docker-compose.yml reads these files; deploy/README.md explains how a cluster gets them. Existing files are kept, because the
# database keeps the password it was created with.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Addresses of the services in docker-compose.yml and deploy/kubernetes/overlays/local.
POSTGRES=postgres:5432
REDIS=redis:6379
LENGTH_BYTES=24

say() { printf 'deploy-secrets: %s\n' "$*" >&2; }

folder=${1:-deploy/secrets}
# Only the owner can enter the folder. The files are readable by all: in a container, the service that a file is mounted
# into runs as another user.
mkdir -p "$folder"
chmod 700 "$folder"

random() { od -An -N "$LENGTH_BYTES" -tx1 /dev/urandom | tr -d ' \n'; }

# Write standard input to a file unless it exists.
keep() {
    local file=$folder/$1
    if [[ -s $file ]]; then
        cat >/dev/null
    else
        cat >"$file"
        chmod 644 "$file"
        say "created $file"
    fi
}

for name in postgres_password redis_password cli_token worker_token grafana_password reader_password; do
    random | keep "$name"
done
printf 'postgres://distillery:%s@%s/distillery' "$(<"$folder/postgres_password")" "$POSTGRES" | keep database_url
printf 'redis://default:%s@%s' "$(<"$folder/redis_password")" "$REDIS" | keep redis_url
# The data may be lost at any time, so nothing is written to disk; nothing is evicted to make room.
printf 'requirepass %s\nsave ""\nappendonly no\nmaxmemory 512mb\nmaxmemory-policy noeviction\n' \
    "$(<"$folder/redis_password")" | keep redis_conf
say "secrets are in $folder"
