#!/usr/bin/env bash
# Run deploy/images/Dockerfile without a container engine: its stages in minimal Debian roots, with the same scripts and the
# context of .dockerignore; then each image's program, as its user, on a read-only root.
#
#   scripts/image-check.sh [TARGET...]      harvester, trainer, inference, all or teacher; default: each of them
#
# Needs root and Debian's debootstrap, which is installed if missing. The Rust image is Debian's with the toolchain of this
# machine, which must have the same version. Roots and builds are kept under
# ${XDG_CACHE_HOME:-$HOME/.cache}/distillery/image-check; remove that folder to start over. Not covered: layers, the engine's
# own parser, and CUDA images.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

RELEASE=bookworm
RUST_VERSION=1.95.0
# Packages of the Rust image that this build needs, in addition to Debian's minimal root.
BUILD_PACKAGES=build-essential,ca-certificates,pkg-config
START_SECONDS_MAX=60

say() { printf 'image-check: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

cache=${XDG_CACHE_HOME:-$HOME/.cache}/distillery/image-check
dockerfile=deploy/images/Dockerfile
targets=("$@")
((${#targets[@]})) || targets=(harvester trainer inference all teacher)

((EUID == 0)) || fail "run as root: it creates Debian roots and enters them"
rustc --version | grep -q "^rustc $RUST_VERSION " || fail "this machine has $(rustc --version), and the image has $RUST_VERSION"
grep -q "^ARG RUST_IMAGE=rust:${RUST_VERSION%.*}-$RELEASE" "$dockerfile" || fail "$dockerfile is made from another image"
mkdir -p "$cache"

# A Debian root with these packages, created once.
root_of() {
    local name=$1 packages=$2
    [[ $(cat "$cache/$name/made" 2>/dev/null || echo none) != "$packages" ]] || return 0
    command -v debootstrap >/dev/null || { say "installing debootstrap"; apt-get update -qq; apt-get install -qq --yes debootstrap >/dev/null; }
    say "making $name: Debian $RELEASE${packages:+ and $packages}"
    rm -rf "${cache:?}/$name"
    debootstrap --variant=minbase ${packages:+--include="$packages"} "$RELEASE" "$cache/$name" >"$cache/$name.log" 2>&1 ||
        { tail -n 5 "$cache/$name.log" >&2; fail "debootstrap failed"; }
    printf '%s' "$packages" >"$cache/$name/made"
}

# Run a command in a root, with the network and the certificate authorities of this machine. Additional mounts come first,
# as SOURCE:TARGET.
inside() {
    local root=$1 mounts=()
    shift
    while [[ $1 == *:/* ]]; do mounts+=("$1"); shift; done
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    [[ -z ${SSL_CERT_FILE:-} ]] || cp "$SSL_CERT_FILE" "$root/tmp/authorities.pem"
    # shellcheck disable=SC2016 # the words are for the inner shell
    unshare --mount bash -euc '
        root=$1; shift
        mount --bind "$root" "$root"
        mount -t proc proc "$root/proc"
        for device in null zero random urandom; do : >>"$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
        while [[ $1 == *:/* ]]; do
            mkdir -p "$root${1#*:}"
            mount --bind "${1%%:*}" "$root${1#*:}"
            shift
        done
        exec chroot "$root" "$@"' inside "$root" "${mounts[@]}" \
        /usr/bin/env -i PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
        ${SSL_CERT_FILE:+SSL_CERT_FILE=/tmp/authorities.pem PIP_CERT=/tmp/authorities.pem CARGO_HTTP_CAINFO=/tmp/authorities.pem} "$@"
    rm -f "$root/tmp/authorities.pem"
}

python=$(scripts/deploy-tools.sh)
checker() { "$python" tests/python/deploy "$1" --root . "${@:2}"; }

# The packages that a stage installs, as an argument of debootstrap.
packages_of() {
    checker image --target "$1" | "$python" -c 'import json, sys; print(",".join(json.load(sys.stdin)["packages"]))'
}

# The build context by .dockerignore, and nothing else.
context() {
    rm -rf "$cache/context"
    mkdir -p "$cache/context"
    checker context | tar --create --files-from - | tar --extract --directory "$cache/context"
    say "the context: $(du -sh --apparent-size "$cache/context" | cut -f 1) in $(find "$cache/context" -type f | wc -l) files"
}

# Run build.sh in the builder's root, with a folder as /source. Cargo's downloads are shared with this machine.
build() {
    local source=$1 toolchain
    shift
    toolchain=$(rustc --print sysroot)
    mkdir -p "$cache/cargo/bin" "$cache/target" "$HOME/.cargo/registry"
    inside "$cache/builder" "$source:/source" "$toolchain:/usr/local/rust" "$cache/cargo:/usr/local/cargo" \
        "$HOME/.cargo/registry:/usr/local/cargo/registry" "$cache/target:/target" "${cache%/*}:/root/.cache/distillery" \
        env PATH=/usr/local/cargo/bin:/usr/local/rust/bin:/usr/bin:/bin CARGO_HOME=/usr/local/cargo CARGO_TARGET_DIR=/target \
        ${LIBTORCH:+LIBTORCH=$LIBTORCH} bash -euc "cd /source && $*"
}

features_of() { if [[ $1 == all ]]; then printf 'harvester,trainer,inference'; else printf '%s' "$1"; fi; }

# Build the binary of a target as the Dockerfile's build stages do.
compile() {
    local target=$1 features libtorch='' source=$cache/source
    features=$(features_of "$target")
    if [[ $target == harvester ]]; then
        [[ ! -e $cache/builder/opt/libtorch ]] || mv "$cache/builder/opt/libtorch" "$cache/libtorch"
    else
        libtorch
        libtorch=/opt/libtorch
    fi
    [[ -x $cache/cargo/bin/cargo-chef ]] || { say "tools"; build "$cache/context" deploy/images/build.sh tools; }
    say "$target: plan"
    build "$cache/context" deploy/images/build.sh plan /recipe.json
    say "$target: cook with the features $features"
    # As in the Dockerfile, dependencies are compiled before there are sources.
    rm -rf "$source" "$cache/builder/out-$target"
    mkdir -p "$source"
    (cd "$cache/context" && cp --parents deploy/images/build.sh scripts/rustc-workspace "$source")
    LIBTORCH=$libtorch build "$source" deploy/images/build.sh cook /recipe.json "$features"
    say "$target: compile"
    cp -a "$cache/context/." "$source/"
    LIBTORCH=$libtorch build "$source" deploy/images/build.sh compile "$features" "/out-$target"
}

# The stage `libtorch`.
libtorch() {
    [[ ! -e $cache/builder/opt/libtorch ]] || return 0
    if [[ -e $cache/libtorch ]]; then mv "$cache/libtorch" "$cache/builder/opt/libtorch"; return; fi
    say "libtorch"
    inside "$cache/fetcher" "$cache/context:/source" "${cache%/*}:/root/.cache/distillery" "$cache/builder/opt:/opt" \
        bash -euc 'cd /source && deploy/images/build.sh libtorch /opt/libtorch'
}

# Assemble the stages of a role's image in a root.
assemble() {
    local target=$1 root=$cache/image-$1
    say "$target: the runtime stage"
    rm -rf "$root"
    cp -a "$cache/runtime" "$root"
    install -D -m 0755 deploy/images/runtime.sh "$root/usr/local/lib/distillery/runtime.sh"
    inside "$root" /usr/local/lib/distillery/runtime.sh
    cp -a "$cache/builder/out-$target/." "$root/usr/local/"
    if [[ $target != harvester ]]; then
        mkdir -p "$root/opt/libtorch/torch"
        cp -a "$cache/builder/opt/libtorch/torch/lib" "$root/opt/libtorch/torch/lib"
        cp -a "$cache/builder/opt/libtorch/nvidia" "$root/opt/libtorch/nvidia"
    fi
}

assemble_teacher() {
    local root=$cache/image-teacher
    say "teacher: its stage"
    rm -rf "$root"
    cp -a "$cache/python" "$root"
    install -D -m 0755 -t "$root/usr/local/lib/distillery" scripts/teacher.sh scripts/teacher.py
    inside "$root" env XDG_CACHE_HOME=/opt /usr/local/lib/distillery/teacher.sh --install-only
}

# Run a script in an image's root as an engine does: read-only, as the image's user, with the image's variables and its own
# network. Only the volume and /tmp are writable.
run() {
    local target=$1 script=$2 root=$cache/image-$1 image
    image=$(checker image --target "$target")
    # shellcheck disable=SC2016 # the words are for the inner shell
    unshare --mount --net --pid --fork bash -euc '
        root=$1 image=$2 script=$3
        ip link set lo up
        mount --bind "$root" "$root"
        mount -t proc proc "$root/proc"
        for device in null zero random urandom; do : >>"$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
        if [[ -d $root/var/lib/distillery ]]; then
            mount -t tmpfs -o mode=0750,uid=10001,gid=10001 tmpfs "$root/var/lib/distillery"
        fi
        mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
        mount -o remount,ro,bind "$root"
        mapfile -t variables < <(python3 -c "import json, sys; [print(f\"{k}={v}\") for k, v in json.loads(sys.argv[1])[\"environment\"].items()]" "$image")
        user=$(python3 -c "import json, sys; print(json.loads(sys.argv[1])[\"user\"])" "$image")
        exec chroot --userspec="$user" "$root" /usr/bin/env -i PATH=/usr/local/bin:/usr/bin:/bin "${variables[@]}" \
            bash -euc "$script"' run "$root" "$image" "$script"
}

# Check the contents and rights of an image.
inspect() {
    local target=$1
    # shellcheck disable=SC2016 # the words are for the inner shell
    run "$target" '
        id -u | grep -qx 10001
        distillery --version | grep "^distillery [0-9]"
        ! : 2>/dev/null >/etc/here || { echo "the root can be written to" >&2; exit 1; }
        : >/tmp/here; : >/var/lib/distillery/here
        test -s /usr/local/share/doc/distillery/crates.txt && test -s /usr/local/share/doc/distillery/debian.txt
        echo "$(wc -l </usr/local/share/doc/distillery/crates.txt) crates, $(wc -l </usr/local/share/doc/distillery/debian.txt) Debian packages"
        if ldd /usr/local/bin/distillery | grep "not found"; then exit 1; fi
        ldd /usr/local/bin/distillery | grep -c "/opt/libtorch" || true'
    if [[ $target == harvester ]]; then
        ! ldd "$cache/image-harvester/usr/local/bin/distillery" | grep -i torch || fail "the harvester is linked to libtorch"
        ! find "$cache/image-harvester" -xdev -name '*torch*' | grep . || fail "the harvester's image has libtorch"
    fi
}

# Serve, check health as the image's HEALTHCHECK does, and stop with SIGTERM. Inference is ready only when a harvester has
# listed the models, and there is none here: check liveness instead.
serve() {
    local target=$1 ask='distillery health --admin'
    [[ $target != inference ]] || ask='distillery health --server http://127.0.0.1:7070 --service grpc.health.v1.Health'
    # shellcheck disable=SC2016 # the words are for the inner shell
    run "$target" '
        refused=$(distillery serve --role '"$target"' 2>&1 || true)
        grep -q "can be reached from other machines" <<<"$refused" || { echo "an open door was not refused: $refused" >&2; exit 1; }
        export DISTILLERY_SERVER_PLAINTEXT=true DISTILLERY_SERVER_ANONYMOUS=true DISTILLERY_SERVER_DRAIN_SECONDS=2
        distillery serve --role '"$target"' & service=$!
        trap "kill $service 2>/dev/null || true" EXIT
        for ((tried = 0; ; tried++)); do
            if '"$ask"' >/dev/null 2>&1; then break; fi
            kill -0 $service || { echo "it ended" >&2; exit 1; }
            ((tried < '"$START_SECONDS_MAX"')) || { '"$ask"'; exit 1; }
            sleep 1
        done
        echo "healthy after $tried s"
        kill -TERM $service
        trap - EXIT
        wait $service
        echo "ended well"'
}

serve_teacher() {
    # shellcheck disable=SC2016 # the words are for the inner shell
    run teacher '
        id -u | grep -qx 10001
        ! : 2>/dev/null >/etc/here || { echo "the root can be written to" >&2; exit 1; }
        python=/opt/distillery/teacher/bin/python
        $python /usr/local/lib/distillery/teacher.py --host 0.0.0.0 --port 8089 & service=$!
        for ((tried = 0; ; tried++)); do
            if $python -c "import urllib.request as r; r.urlopen(\"http://127.0.0.1:8089/health\")" 2>/dev/null; then break; fi
            kill -0 $service
            ((tried < '"$START_SECONDS_MAX"')) || exit 1
            sleep 1
        done
        $python -c "
import json, urllib.request as r
asked = r.Request(\"http://127.0.0.1:8089/v1/completions\", json.dumps({\"prompt\": \"One, two,\", \"max_tokens\": 4}).encode(), {\"content-type\": \"application/json\"})
print(\"healthy after $tried s, and it answers\", json.load(r.urlopen(asked))[\"choices\"][0][\"text\"])"
        kill -TERM $service
        wait $service'
}

context
root_of runtime ''
for target in "${targets[@]}"; do
    if [[ $target == teacher ]]; then
        root_of python "$(packages_of teacher)"
        assemble_teacher
        serve_teacher
    else
        root_of builder "$BUILD_PACKAGES"
        root_of fetcher "$(packages_of libtorch)"
        compile "$target"
        assemble "$target"
        inspect "$target"
        serve "$target"
    fi
    say "$target: $(du -sh "$cache/image-$target" | cut -f 1)"
done
say "done: ${targets[*]}"
