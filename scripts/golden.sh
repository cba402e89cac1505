#!/usr/bin/env bash
# Writes the golden files again: tiny T5 checkpoints and what `transformers` computes with them (crates/t5/tests/golden), a
# checkpoint of every kind in docs/MODELS.md (crates/t5/tests/golden/kinds), SentencePiece models and the tokenizers that
# `transformers` makes of them (crates/checkpoints/tests/golden).
#
#   scripts/golden.sh                   set up Python where it is missing, then write the files
#   scripts/golden.sh --install-only    set up Python and stop: tests that ask `transformers` itself find it there
#
# Python's packages are kept under ${XDG_CACHE_HOME:-$HOME/.cache}/distillery/python (about 4 GB: PyPI's torch brings its
# CUDA libraries, which the processor's half cannot be loaded without); a second call fetches nothing.
set -euo pipefail

TORCH_VERSION=2.11.0
TRANSFORMERS_VERSION=5.24.0
SAFETENSORS_VERSION=0.8.0
NUMPY_VERSION=2.3.5
SENTENCEPIECE_VERSION=0.2.1
PROTOBUF_VERSION=6.33.1

scripts=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/distillery
home=$cache/python
stamp=$home/installed-$TORCH_VERSION-$TRANSFORMERS_VERSION-$SAFETENSORS_VERSION-$NUMPY_VERSION-$SENTENCEPIECE_VERSION-$PROTOBUF_VERSION

say() { printf 'golden: %s\n' "$*" >&2; }

install() {
    local base=${PYTHON:-python3}
    command -v "$base" >/dev/null || { say "$base is not on the path; install Python 3.11 or newer"; exit 1; }
    say "installing torch $TORCH_VERSION, transformers $TRANSFORMERS_VERSION and safetensors $SAFETENSORS_VERSION into $home"
    # An environment that runs is brought up to these versions; one that does not run is made again.
    "$home/bin/python" -c 'import pip' 2>/dev/null || rm -rf "$home"
    [[ -d $home ]] || "$base" -m venv "$home" || { say "$base -m venv failed; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check "torch==$TORCH_VERSION" \
        "transformers==$TRANSFORMERS_VERSION" "safetensors==$SAFETENSORS_VERSION" "numpy==$NUMPY_VERSION" \
        "sentencepiece==$SENTENCEPIECE_VERSION" "protobuf==$PROTOBUF_VERSION" >&2
    : >"$stamp"
    say "installed"
}

mkdir -p "$cache"
# Two calls at the same time must not build the environment twice, one over the other.
exec 9>"$cache/python.lock"
if command -v flock >/dev/null; then flock 9; fi
if [[ -f $stamp && -x $home/bin/python ]]; then say "found in $home"; else install; fi
exec 9>&-

if [[ ${1:-} == --install-only ]]; then exit 0; fi
for part in golden golden_kinds golden_tokenizers; do
    "$home/bin/python" "$scripts/$part.py"
done
