#!/usr/bin/env bash
# What checks the Python client, from PyPI. Prints the interpreter that has it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mapfile -t pins < <(grep -F '==' clients/python/requirements.txt)
home=$(scripts/pypi.sh python-client "${pins[@]}")
printf '%s\n' "$home/bin/python"
