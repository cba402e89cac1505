#!/usr/bin/env bash
# Measure this project, transformers and CTranslate2 in one run, on the same weights and lengths; and a cluster's harvesters
# against a bare load generator, on the same teacher. Peers run from a cached Python environment. Run nothing else at the same time.
#
#   scripts/bench.sh                                 everything
#   scripts/bench.sh cluster                         only the harvesters
#   scripts/bench.sh training [--quick] [--json]     only optimiser steps, by turns with the paper's trainer on transformers;
#                                                    --quick takes some minutes once set up, --json prints one object of ratios
#   scripts/bench.sh serving [--quick] [--json]      only greedy decoding, beside CTranslate2, onnxruntime and OpenVINO, int8 all
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

CTRANSLATE2_VERSION=4.8.5
ONNX_VERSION=1.23.2
ONNXRUNTIME_VERSION=1.32.0
OPENVINO_VERSION=2026.4.1
python=${XDG_CACHE_HOME:-$HOME/.cache}/distillery/python/bin/python

# PACKAGE==VERSION...: into the cached Python environment, where they are missing.
peers() {
    scripts/golden.sh --install-only
    local missing=()
    for wanted in "$@"; do
        "$python" -c "import importlib.metadata as m, sys; sys.exit(m.version('${wanted%%==*}') != '${wanted##*==}')" 2>/dev/null ||
            missing+=("$wanted")
    done
    [[ ${#missing[@]} -eq 0 ]] && return
    printf 'bench: installing %s\n' "${missing[*]}" >&2
    "$python" -m pip install --quiet --disable-pip-version-check "${missing[@]}" >&2
}

training() {
    scripts/libtorch.sh
    peers
    printf 'bench: building\n' >&2
    cargo build --release -p trainer --example training
    "$python" benches/training.py target/release/examples/training "$@"
}

serving() {
    peers "ctranslate2==$CTRANSLATE2_VERSION" "onnx==$ONNX_VERSION" "onnxruntime==$ONNXRUNTIME_VERSION" "openvino==$OPENVINO_VERSION"
    printf 'bench: building\n' >&2
    cargo build --release -p decoder --example speed
    "$python" benches/serving.py target/release/examples/speed "$@"
}

case ${1:-} in
training | serving)
    what=$1
    shift
    "$what" "$@"
    exit 0
    ;;
esac

scripts/libtorch.sh
scripts/services.sh
printf 'bench: building\n' >&2
cargo build --release -p cli
cargo build --release -p tests --example cluster
printf 'bench: measuring a cluster\n' >&2
DISTILLERY_BINARY=target/release/distillery target/release/examples/cluster
[[ ${1:-} != cluster ]] || exit 0

peers "ctranslate2==$CTRANSLATE2_VERSION"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

printf 'bench: building\n' >&2
cargo build --release -p trainer --example measure
printf 'bench: measuring this project\n' >&2
target/release/examples/measure "$folder" | tee "$folder/ours.jsonl" >&2
printf 'bench: measuring the peers\n' >&2
"$python" benches/peers.py "$folder" "$folder/ours.jsonl"
training "$@"
serving "$@"
