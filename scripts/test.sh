#!/usr/bin/env bash
# Every test, from a fresh clone on: fetches what is missing, says what it does, builds once, runs everything.
#
# Kept between runs and clones: libtorch, the teacher and compiled dependencies, under ${XDG_CACHE_HOME:-$HOME/.cache}/distillery.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\ntest: %s\n' "$*" >&2; }

began=$(date +%s)
scripts/libtorch.sh
scripts/services.sh
scripts/teacher.sh --install-only
scripts/s3.sh
scripts/grpc.sh >/dev/null
scripts/watch-tools.sh >/dev/null
scripts/deploy-tools.sh >/dev/null
fetched=$(date +%s)
say "building"
cargo build --workspace --all-targets
built=$(date +%s)
say "running"
cargo test --workspace --no-fail-fast
say "seconds: fetch $((fetched - began)), build $((built - fetched)), run $(($(date +%s) - built)), all $(($(date +%s) - began))"
