#!/usr/bin/env bash
# The steps that build an image's binary, one per call. The Dockerfile runs each in its own stage; scripts/image-check.sh runs
# them one after another without an engine. All but `cook` also work in a clone.
#
#   build.sh tools                      install cargo-chef and cargo-auditable
#   build.sh plan FILE                  write the recipe of dependencies: it changes with manifests and Cargo.lock only
#   build.sh libtorch FOLDER [--cuda]   install libtorch into FOLDER
#   build.sh cook FILE FEATURES         compile the dependencies of a binary with these features, without sources
#   build.sh compile FEATURES FOLDER    compile the binary and fill FOLDER as an image's /usr/local
#
# LIBTORCH, if set, is the folder made by `libtorch`; binaries look for it at the same path at run time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

CHEF_VERSION=0.1.77
AUDITABLE_VERSION=0.7.7

say() { printf 'build: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# The loader's path to libtorch. The same for dependencies and binary, otherwise cargo recompiles the former.
flags() {
    if [[ -n ${LIBTORCH:-} ]]; then
        export RUSTFLAGS="-C link-arg=-Wl,-rpath,$LIBTORCH/torch/lib"
    fi
}

tools() {
    cargo install --quiet --locked "cargo-chef@$CHEF_VERSION" "cargo-auditable@$AUDITABLE_VERSION"
}

libtorch() {
    local folder=$1 work
    shift
    [[ ! -e $folder ]] || fail "$folder is there already"
    # scripts/libtorch.sh writes settings into its clone: use a copy to keep those of this clone.
    work=$(mktemp -d)
    mkdir "$work/scripts"
    cp scripts/libtorch.sh "$work/scripts/"
    "$work/scripts/libtorch.sh" "$@"
    mkdir -p "$(dirname "$folder")"
    cp -a "$(readlink -f "$work/.local/libtorch")" "$folder"
    rm -rf "$work"
}

cook() {
    # It generates manifests and sources from the recipe, and would overwrite real ones.
    [[ ! -e crates ]] || fail "cook runs where the sources are not there yet: crates/ is here"
    flags
    cargo chef cook --release --locked --recipe-path "$1" --package cli --no-default-features --features "$2"
}

# The binary contains the list of its crates for scanners (cargo-auditable); the same list as text is next to Debian's.
compile() {
    local features=$1 folder=$2 documentation=$2/share/doc/distillery
    flags
    cargo auditable build --release --locked --package cli --no-default-features --features "$features"
    install -D --mode 0755 "${CARGO_TARGET_DIR:-target}/release/distillery" "$folder/bin/distillery"
    install -D --mode 0644 LICENSE "$documentation/LICENSE"
    cargo tree --locked --package cli --no-default-features --features "$features" --edges normal --prefix none \
        --format '{p} {l}' | sed 's/ (\*)$//; s/ (\/[^)]*)//' | sort -u >"$documentation/crates.txt"
    say "$(wc -l <"$documentation/crates.txt") crates in $(du -h "$folder/bin/distillery" | cut -f 1)"
}

case ${1:-} in
    tools) tools ;;
    plan) cargo chef prepare --recipe-path "$2" ;;
    libtorch) libtorch "${@:2}" ;;
    cook) cook "$2" "$3" ;;
    compile) compile "$2" "$3" ;;
    *) fail "a step is named: tools, plan, libtorch, cook or compile" ;;
esac
