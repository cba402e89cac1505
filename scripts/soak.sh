#!/usr/bin/env bash
# Attack the services for long: MESSAGES hostile messages (a million by default) and MINUTES (30) of floods; as many rounds of
# random kills and cut lines, which take about a minute each; as many inputs for the readers of files as messages. The seed of
# each test is printed: DISTILLERY_TEST_SEED repeats it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/libtorch.sh
scripts/services.sh
printf 'soak: building\n' >&2
cargo build --workspace --all-targets
export DISTILLERY_SOAK_MESSAGES=${MESSAGES:-1000000} DISTILLERY_SOAK_MINUTES=${MINUTES:-30}
failed=0
run() { cargo test --quiet --workspace --test "$1" "${@:2}" -- --nocapture --test-threads 1 || failed=1; }
run soak
run parsers
run cluster random_kills_change_nothing
run faults lines_that_are_cut_slow_and_dead_change_nothing
exit $failed
