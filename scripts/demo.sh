#!/usr/bin/env bash
# The demo: a small real teacher, a student from scratch, and both measured on the same test rows.
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
# Stop only the teacher that this script started.
trap '[[ -z $teacher ]] || kill "$teacher" 2>/dev/null || true' EXIT
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

./target/release/distillery run examples/word-problems/spec.toml
ran=$(seconds)

say "the student alone, next to the expected answers"
head -n 4 examples/word-problems/test.jsonl | ./target/release/distillery predict --model word-problems --explain -

say "seconds: fetch $((fetched - began)), build $((built - fetched)), teacher $((ready - built)), distil $((ran - ready)), all $(($(seconds) - began))"
