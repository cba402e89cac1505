"""Every overlay as built by `kubectl kustomize`: each object by its schema, and our own rules."""

import pathlib
import subprocess
import sys

import images
import policies
import yaml
from schemas import kubernetes_errors
from tree import Tree, UniqueKeys

OVERLAYS = "deploy/kubernetes/overlays"
# Applied by the operator of the cluster, and part of no overlay.
BESIDE = ["deploy/kubernetes/components/kueue-trainer/cluster-queue.yaml"]


def built(tree: Tree, overlay: str) -> list[dict]:
    """The objects of one overlay."""
    kubectl = pathlib.Path(sys.executable).parent / "kubectl"
    said = subprocess.run([kubectl, "kustomize", tree.root / OVERLAYS / overlay], capture_output=True, text=True)
    if said.returncode != 0:
        tree.complain(f"{OVERLAYS}/{overlay}", said.stderr.strip())
        return []
    if said.stderr.strip():
        tree.complain(f"{OVERLAYS}/{overlay}", said.stderr.strip())
    return objects(said.stdout)


def objects(text: str) -> list[dict]:
    return [document for document in yaml.load_all(text, UniqueKeys) if document]  # noqa: S506 (a SafeLoader)


def overlays(tree: Tree) -> list[str]:
    found = sorted(path.parent.name for path in (tree.root / OVERLAYS).glob("*/kustomization.yaml"))
    return [tree.overlay] if tree.overlay else found


def check(tree: Tree) -> None:
    targets = set(images.stages(tree))
    for overlay in overlays(tree):
        found = built(tree, overlay)
        place = f"{OVERLAYS}/{overlay}"
        by_schema: dict[str, int] = {}
        for item in found:
            schema, errors = kubernetes_errors(item)
            by_schema[schema] = by_schema.get(schema, 0) + 1
            for error in errors:
                tree.complain(f"{place}: {name(item)}", error)
        if found:
            policies.check(tree, place, found, targets)
        counts = ", ".join(f"{count} by {schema}" for schema, count in sorted(by_schema.items()))
        tree.note(f"kubernetes: {overlay}: {len(found)} objects: {counts}")
    for path in BESIDE:
        for item in objects(tree.text(path)):
            for error in kubernetes_errors(item)[1]:
                tree.complain(f"{path}: {name(item)}", error)


def name(item: dict) -> str:
    return f"{item.get('kind')} {item.get('metadata', {}).get('name')}"


def queries(tree: Tree) -> list[dict]:
    """Every SQL query of a scaler."""
    found = {}
    for overlay in overlays(tree):
        for item in built(tree, overlay):
            for trigger in item.get("spec", {}).get("triggers", []) if item["kind"] == "ScaledObject" else []:
                metadata = trigger["metadata"]
                key = (item["metadata"]["name"], metadata["query"])
                found[key] = {"scales": key[0], "query": key[1], "target": metadata["targetQueryValue"]}
    return [found[key] for key in sorted(found)]
