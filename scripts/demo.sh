#!/usr/bin/env bash
# The demo: a small real teacher labels reviews that have no label, two students from scratch learn from its answers (one its labels
# and rationales, the other its labels alone), and all three are measured on the same test rows.
#
# Set DISTILLERY_TEACHER_URL to use another teacher (the base URL of an OpenAI-compatible API, such as http://host:8000/v1);
# then none is started. Everything is stored in ./.distillery; a second call resumes where the first one stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\ndemo: %s\n' "$*" >&2; }
seconds() { date +%s; }

PORT=${DISTILLERY_DEMO_PORT:-8089}
unset DISTILLERY_DEMO_PORT
began=$(seconds)

scripts/libtorch.sh
fetched=$(seconds)
say "building"
cargo build --release -p cli
built=$(seconds)

teacher=
results=$(mktemp -d)
# Stop only the teacher that this script started.
trap 'rm -rf "$results"; [[ -z $teacher ]] || kill "$teacher" 2>/dev/null || true' EXIT
if [[ -z ${DISTILLERY_TEACHER_URL:-} ]]; then
    say "starting the teacher (SmolLM2-135M)"
    answer=$(mktemp)
    scripts/teacher.sh --install-only
    scripts/teacher.sh --port "$PORT" >"$answer" &
    teacher=$!
    for _ in $(seq 1 600); do
        [[ -s $answer ]] && break
        kill -0 "$teacher" 2>/dev/null || { say "the teacher did not start; if port $PORT is in use, set DISTILLERY_DEMO_PORT"; exit 1; }
        sleep 0.2
    done
    DISTILLERY_TEACHER_URL=$(head -n 1 "$answer")
    rm -f "$answer"
    export DISTILLERY_TEACHER_URL
fi
say "teacher: $DISTILLERY_TEACHER_URL"
ready=$(seconds)

distillery=./target/release/distillery
$distillery run examples/reviews/spec.toml --json >"$results/step-by-step.json"
ran=$(seconds)

say "the same student again, from the teacher's labels alone: nothing is asked"
$distillery train reviews --objective standard --json >"$results/labels-only.json"
trained=$(seconds)

labels_only=$(python3 scripts/demo.py --checkpoint "$results/labels-only.json")
$distillery compare reviews "$labels_only" examples/reviews/test.jsonl --json >"$results/compared.json"
compared=$(seconds)

say "four test rows, next to the labels that they were made for"
head -n 4 examples/reviews/test.jsonl | $distillery predict --model reviews --explain -

printf '\n'
python3 scripts/demo.py "$results"
printf 'seconds: fetch %d, build %d, teacher %d, ask and train %d, train on labels %d, compare %d, all %d\n' \
    $((fetched - began)) $((built - fetched)) $((ready - built)) $((ran - ready)) $((trained - ran)) $((compared - trained)) \
    $(($(seconds) - began))
