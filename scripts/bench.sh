#!/usr/bin/env bash
# Measure this project, transformers and CTranslate2 in one run, on the same weights and lengths; and a cluster's harvesters
# against a bare load generator, on the same teacher. Peers run from a cached Python environment. Run nothing else at the same time.
#
#   scripts/bench.sh                                 everything
#   scripts/bench.sh cluster                         only the harvesters
#   scripts/bench.sh training [--quick] [--json]     only optimiser steps, by turns with the paper's trainer on transformers;
#                                                    --quick takes a minute once set up, --json prints one object of ratios
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

CTRANSLATE2_VERSION=4.8.5

training() {
    scripts/libtorch.sh
    scripts/golden.sh --install-only
    printf 'bench: building\n' >&2
    cargo build --release -p trainer --example training
    "${XDG_CACHE_HOME:-$HOME/.cache}/distillery/python/bin/python" benches/training.py target/release/examples/training "$@"
}

if [[ ${1:-} == training ]]; then
    shift
    training "$@"
    exit 0
fi

scripts/libtorch.sh
scripts/services.sh
printf 'bench: building\n' >&2
cargo build --release -p cli
cargo build --release -p tests --example cluster
printf 'bench: measuring a cluster\n' >&2
DISTILLERY_BINARY=target/release/distillery target/release/examples/cluster
[[ ${1:-} != cluster ]] || exit 0

scripts/golden.sh --install-only
cache=${XDG_CACHE_HOME:-$HOME/.cache}/distillery
python=$cache/python/bin/python
"$python" -m pip show --quiet ctranslate2 2>/dev/null || {
    printf 'bench: installing CTranslate2 %s into %s\n' "$CTRANSLATE2_VERSION" "$cache/python" >&2
    "$python" -m pip install --quiet --disable-pip-version-check "ctranslate2==$CTRANSLATE2_VERSION" >&2
}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

printf 'bench: building\n' >&2
cargo build --release -p trainer --example measure
printf 'bench: measuring this project\n' >&2
target/release/examples/measure "$folder" | tee "$folder/ours.jsonl" >&2
printf 'bench: measuring the peers\n' >&2
"$python" benches/peers.py "$folder" "$folder/ours.jsonl"
training
