#!/usr/bin/env bash
# Check what needs a GPU: the golden tests with gradients on the device, then a small training run and a prediction. The last
# line is the training speed in examples per second.
#
#   scripts/libtorch.sh --cuda && scripts/check-cuda.sh
#
# The run writes to a temporary folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

STEPS=300
BATCH=32

say() { printf '\ncheck-cuda: %s\n' "$*" >&2; }
fail() { printf 'check-cuda: %s\n' "$*" >&2; exit 1; }

# Fail with a remedy if there is no GPU or no libtorch for one.
refuse() {
    command -v nvidia-smi >/dev/null || fail "nvidia-smi not found: this machine has no NVIDIA driver"
    nvidia-smi -L | grep -q '^GPU' || fail "nvidia-smi finds no GPU"
    [[ -e .local/libtorch ]] || fail "libtorch is not set up: run scripts/libtorch.sh --cuda first"
    local libtorch
    libtorch=$(readlink -f .local/libtorch)
    [[ -e $libtorch/torch/lib/libtorch_cuda.so || -e $libtorch/lib/libtorch_cuda.so ]] ||
        fail "$libtorch has no libtorch_cuda.so: run scripts/libtorch.sh --cuda first"
}

# The golden tests on the device. Without a CUDA device they fail instead of passing on the CPU.
tests() {
    say "golden tests on $(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1)"
    DISTILLERY_TEST_DEVICE=cuda cargo test --release -p t5 --no-fail-fast \
        --test golden --test generation --test checkpoints --test transformers -- --nocapture
}

# A student trained from scratch on the labels of the example data, without a teacher.
specification() {
    cat <<TOML
name = "check-cuda"
task = "equation"

[data]
train = "train.jsonl"
validation = "validation.jsonl"
test = "test.jsonl"

[teacher]
profile = "none"

[student]
size = "mini"
vocabulary = 1024

[training]
objective = "standard"
learning_rate = 5e-4
warmup_steps = 30
steps = $STEPS
batch_examples = $BATCH
evaluate_every_steps = $STEPS
checkpoint_every_steps = $STEPS
TOML
}

# Print a field of the JSON object on standard input, given its path.
field() {
    python3 -c 'import functools, json, sys; print(functools.reduce(lambda value, name: value[name], sys.argv[1].split("."), json.load(sys.stdin)))' "$1"
}

run() {
    local distillery=./target/release/distillery log=$work/log result
    cp examples/word-problems/*.jsonl "$work/"
    specification >"$work/spec.toml"
    say "training $STEPS steps of $BATCH examples"
    result=$(DISTILLERY_LOG_LEVEL="warn,trainer=info" "$distillery" run "$work/spec.toml" --data-dir "$work/data" --json 2>"$log") ||
        { cat "$log" >&2; fail "the run failed"; }
    # The CPU would do the same work: check the device that the trainer logged.
    grep -q 'Cuda(0)' "$log" || { cat "$log" >&2; fail "the run did not train on the GPU"; }
    [[ $(field state <<<"$result") == succeeded ]] || fail "the run ended as: $result"
    say "predicting"
    head -n 4 "$work/test.jsonl" | "$distillery" predict --data-dir "$work/data" --model check-cuda -
    local seconds
    seconds=$(field seconds.train <<<"$result")
    say "test accuracy $(field student.accuracy <<<"$result") after $STEPS steps"
    awk -v examples=$((STEPS * BATCH)) -v seconds="$seconds" \
        'BEGIN { printf "check-cuda: %.0f examples/s (%d examples in %.1f s)\n", examples / seconds, examples, seconds }'
}

refuse
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tests
say "building"
cargo build --release -p cli
run
