#!/usr/bin/env bash
# An S3-compatible server for tests: moto, from PyPI.
#
#   scripts/s3.sh                install it if missing
#   scripts/s3.sh --port 9000    install it if missing, then serve on 127.0.0.1
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

home=$(scripts/pypi.sh s3 "moto[s3,server]==5.2.5")
if [[ ${1:-} == --port ]]; then
    exec "$home/bin/moto_server" -H 127.0.0.1 -p "$2"
fi
