#!/usr/bin/env bash
# Everything a reviewer would check before reading: formatting, lints, documentation, edges between crates and files, unused
# dependencies, licences, stale generated code, protocol definitions, spelling, scripts. Tools that cargo does not bring come
# from PyPI, into the cache.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'lint: %s\n' "$*" >&2; }

tools=$(scripts/lint-tools.sh)
PATH=$tools:$PATH

# The released protocol with the highest version; nothing before the first release.
last_release() { find proto -path 'proto/released/*.binpb' | sort -V | tail -n 1; }

scripts/libtorch.sh
# The checks of SQL start a database of their own.
scripts/services.sh
say "formatting"
cargo fmt --all -- --check
say "clippy"
cargo clippy --workspace --all-targets -- -D warnings
say "clippy of each role alone, as the images build it"
for role in harvester trainer inference; do
    cargo clippy --package cli --no-default-features --features "$role" -- -D warnings
done
say "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
say "edges between crates, circles between files"
cargo xtask tidy
say "unused dependencies"
cargo shear --deny-warnings
say "licences, sources and bans of dependencies"
cargo deny --log-level error check licenses sources bans
say "generated code"
cargo xtask codegen --check
say "the document of metrics"
cargo xtask metrics --check
say "reference pages"
cargo xtask reference --check
say "checked SQL"
cargo xtask sql --check
say "protocol definitions"
buf lint proto
released=$(last_release)
if [[ -n $released ]]; then
    say "compatibility with the protocol of $released"
    buf breaking proto --against "$released"
else
    say "no release yet: no protocol to stay compatible with"
fi
say "the Python client"
python=$(scripts/python-client.sh)
(cd clients/python && "$python" scripts/stubs.py --check && "$python" -m mypy)
say "spelling"
typos
say "scripts"
shellcheck .ci/run scripts/*.sh scripts/rustc-workspace deploy/images/*.sh
ruff check --quiet .
ruff format --check --quiet .
say "clean"
