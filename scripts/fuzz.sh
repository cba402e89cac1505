#!/usr/bin/env bash
# Search for bytes that break a reader, with libFuzzer: scripts/fuzz.sh [READER...], all of them by default, for SECONDS_EACH
# (60). What breaks one is in fuzz/artifacts, and what was found on the way in fuzz/corpus; neither is checked in.
# Instrumentation is a pass of LLVM: it needs no nightly compiler.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/libtorch.sh
host=$(rustc -vV | sed -n 's/^host: //p')
libtorch=$(realpath .local/libtorch)
coverage="-C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4"
coverage+=" -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table"
coverage+=" -C llvm-args=-sanitizer-coverage-trace-compares"
# Everything is instrumented, and so kept apart from what other builds compiled.
export CARGO_BUILD_BUILD_DIR=${XDG_CACHE_HOME:-$HOME/.cache}/distillery/fuzz
export RUSTFLAGS="--cfg fuzzing -C link-arg=-Wl,-rpath,$libtorch/torch/lib $coverage"
printf 'fuzz: building\n' >&2
cargo build --quiet --release --manifest-path fuzz/Cargo.toml --target "$host"

readers=("$@")
if [[ ${#readers[@]} -eq 0 ]]; then
    mapfile -t readers < <(sed -n 's/.*name: "\([a-z_]*\)".*/\1/p' tests/tests/parsers/targets.rs)
fi
broken=0
for reader in "${readers[@]}"; do
    printf 'fuzz: %s\n' "$reader" >&2
    mkdir -p "fuzz/corpus/$reader" "fuzz/artifacts/$reader"
    # The seeds of the tests, copied: libFuzzer reads folders.
    DISTILLERY_FUZZED=$reader DISTILLERY_FUZZ_SEEDS=fuzz/corpus/$reader \
        fuzz/target/"$host"/release/readers "fuzz/corpus/$reader" -artifact_prefix="fuzz/artifacts/$reader/" \
        -max_total_time="${SECONDS_EACH:-60}" -timeout=25 -rss_limit_mb=4096 -max_len=65536 -print_final_stats=1 || broken=1
done
exit $broken
