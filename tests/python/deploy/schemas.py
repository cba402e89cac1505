"""Errors by the programs that read the files: Docker Compose itself, and the schemas of Kubernetes and KEDA."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import jsonschema
import kubernetes_validate

# The oldest and the newest supported version.
KUBERNETES_VERSIONS = ("1.31", "1.37")
# No package has Kueue's schemas: these are the keys of v1beta2 that we use, from its reference.
KUEUE = {
    "ResourceFlavor": {"spec": {"nodeLabels", "nodeTaints", "tolerations", "topologyName"}},
    "ClusterQueue": {"spec": {"namespaceSelector", "resourceGroups", "cohortName", "preemption", "queueingStrategy"}},
    "LocalQueue": {"spec": {"clusterQueue", "stopPolicy"}},
}
CORE = {"v1", "apps/v1", "batch/v1", "policy/v1", "networking.k8s.io/v1"}


def compose_errors(folder: pathlib.Path, files: list[str]) -> list[str]:
    """Errors of Docker Compose when it reads the files as `up` does: schema, interpolation, references."""
    program = pathlib.Path(sys.executable).parent / "docker-compose"
    chosen = [word for file in files for word in ("--file", file)]
    # The environment of this process must not fill gaps in the files.
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": os.environ.get("HOME", "/")}
    said = subprocess.run(
        [program, *chosen, "--profile", "*", "config", "--quiet"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    words = [line for line in said.stderr.splitlines() if line.strip()]
    if said.returncode != 0 and not words:
        words = [f"Docker Compose ended with {said.returncode}"]
    return words


def kubernetes_errors(item: dict) -> tuple[str, list[str]]:
    """The schema of an object, and its errors."""
    version, kind = item.get("apiVersion", ""), item.get("kind", "")
    if version in CORE:
        return "Kubernetes", core_errors(item)
    if version == "keda.sh/v1alpha1" and kind in keda_schemas():
        return "KEDA", keda_errors(item)
    if version == "kueue.x-k8s.io/v1beta2" and kind in KUEUE:
        return "keys (Kueue)", kueue_errors(item)
    return "none", [f"nothing here knows {version} {kind}"]


def core_errors(item: dict) -> list[str]:
    return core_errors_of(json.dumps(item))


@functools.cache
def core_errors_of(text: str) -> list[str]:
    """The errors of an object, cached: each validation reads the schemas, and objects repeat."""
    item = json.loads(text)
    errors = []
    for version in KUBERNETES_VERSIONS:
        try:
            kubernetes_validate.validate(item, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            path = ".".join(str(step) for step in error.path)
            errors.append(f"Kubernetes {version}: {path}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError as error:
            errors.append(error.message)
    return errors


@functools.cache
def keda_schemas() -> dict:
    return json.loads((pathlib.Path(sys.prefix) / "keda.json").read_text())


def keda_errors(item: dict) -> list[str]:
    validator = jsonschema.Draft202012Validator(keda_schemas()[item["kind"]])
    return [
        f"KEDA: {'.'.join(str(step) for step in each.path)}: {each.message}"
        for error in validator.iter_errors(item)
        for each in deepest(error)
    ]


def deepest(error) -> list:
    """The errors of the branches if none of a choice matches."""
    return [inner for each in error.context for inner in deepest(each)] if error.context else [error]


def kueue_errors(item: dict) -> list[str]:
    known = KUEUE[item["kind"]]
    unknown = item.get("spec", {}).keys() - known["spec"] | item.keys() - {"apiVersion", "kind", "metadata", "spec"}
    return [f"Kueue: `{key}` is no key of {item['kind']}" for key in sorted(unknown)]
