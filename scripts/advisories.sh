#!/usr/bin/env bash
# Check dependencies against RustSec's advisories. Not part of lint.sh: the database is fetched with git, and a new advisory
# would fail a commit that has nothing to do with it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools=$(scripts/lint-tools.sh)
PATH=$tools:$PATH
exec cargo deny check advisories
