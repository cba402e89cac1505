#!/usr/bin/env bash
# Run every test, starting from a fresh clone if need be: install what is missing, build, run.
#
# Kept between runs and clones: libtorch, the teacher, tools and compiled dependencies, under
# ${XDG_CACHE_HOME:-$HOME/.cache}/distillery. The last line is `N passed, N failed, N skipped`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\ntest: %s\n' "$*" >&2; }

began=$(date +%s)
scripts/libtorch.sh
scripts/services.sh
scripts/teacher.sh --install-only
scripts/s3.sh
scripts/grpc.sh >/dev/null
scripts/python-client.sh >/dev/null
scripts/watch-tools.sh >/dev/null
scripts/deploy-tools.sh >/dev/null
scripts/browser-tools.sh >/dev/null
fetched=$(date +%s)
say "building"
cargo build --workspace --all-targets
say "seconds: install $((fetched - began)), build $(($(date +%s) - fetched))"
say "running"
# Not `cargo xtask`, which would compile its dependencies again for itself alone.
exec target/debug/xtask test
