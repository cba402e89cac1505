"""docker-compose.yml and its override: the schema, and our own rules."""

import pathlib
import re

import images
from schemas import compose_errors
from tree import Tree, last_call_seconds, secret_in

MAIN = "docker-compose.yml"
OVERRIDE = "deploy/compose/gpu.yml"
SECRETS = "./deploy/secrets/"
UNITS = {"h": 3600, "m": 60, "s": 1}
# Their images have no shell and no client for a health check, and nothing depends on them.
WITHOUT_HEALTH = {"otel-collector", "jaeger"}


def seconds(text: str) -> int:
    return sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)([hms])", text))


def environment(service: dict) -> dict[str, str]:
    given = service.get("environment") or {}
    if isinstance(given, list):
        given = dict(entry.partition("=")[::2] for entry in given)
    return {name: str(value if value is not None else "") for name, value in given.items()}


def check(tree: Tree) -> None:
    targets = images.stages(tree)
    for files in ([MAIN], [MAIN, OVERRIDE]):
        for error in compose_errors(tree.root, files):
            tree.complain(" and ".join(files), error)
    for path in (MAIN, OVERRIDE):
        document = tree.yaml(path)
        for name, service in document["services"].items():
            check_image(tree, f"{path}: {name}", service, targets)
            check_secrecy(tree, f"{path}: {name}", service)
    document = tree.yaml(MAIN)
    services = document["services"]
    for name, service in services.items():
        place = f"{MAIN}: {name}"
        check_start(tree, place, name, service, services)
        check_rights(tree, place, service)
        check_mounts(tree, place, service, document)
        check_end(tree, place, service, document)
    check_secret_files(tree, document)
    for name, config in document.get("configs", {}).items():
        if not (tree.root / config["file"]).exists():
            tree.complain(f"{MAIN}: {name}", f"{config['file']} is not there")
    for name in tree.yaml(OVERRIDE)["services"].keys() - services.keys():
        tree.complain(f"{OVERRIDE}: {name}", f"is no service of {MAIN}")
    gated = sum(len(service.get("depends_on", {})) for service in services.values())
    tree.note(f"compose: {len(services)} services, {gated} of them waited for by health or end")


def check_image(tree: Tree, place: str, service: dict, targets) -> None:
    image = service.get("image", "")
    repository, _, tag = image.partition(":")
    if not tag or "latest" in tag:
        tree.complain(place, f"`{image}` has no version")
    ours = re.fullmatch(r"distillery-([a-z-]+)", repository)
    target = service["build"].get("target") if isinstance(service.get("build"), dict) else None
    if ours:
        if ours[1] not in targets:
            tree.complain(place, f"`{repository}`: {images.DOCKERFILE} has no target `{ours[1]}`")
        if tag != f"${{IMAGE_TAG:-{tree.version()}}}":
            tree.complain(place, f"`{tag}` is not this version, {tree.version()}")
        if target is None:
            tree.complain(place, f"does not build `{repository}`: no registry has it")
        elif target != ours[1]:
            tree.complain(place, f"builds `{target}` and calls it `{repository}`")


def check_secrecy(tree: Tree, place: str, service: dict) -> None:
    for name, value in environment(service).items():
        if secret_in(name, value):
            tree.complain(place, f"{name} is a secret in clear text")
    for part in ("command", "entrypoint"):
        words = service.get(part) or []
        for word in words if isinstance(words, list) else [words]:
            if secret_in("", word):
                tree.complain(place, f"{part} has a secret in clear text")


def check_start(tree: Tree, place: str, name: str, service: dict, services: dict) -> None:
    """A service that others wait for has a health check."""
    waits = service.get("depends_on", {})
    if isinstance(waits, list):
        tree.complain(place, "depends_on waits for a start only: name a condition")
        waits = {}
    for other, how in waits.items():
        condition = how.get("condition")
        if other not in services:
            tree.complain(place, f"depends on `{other}`, which is no service")
        elif condition == "service_healthy":
            health = services[other].get("healthcheck") or {}
            if not health.get("test") or health.get("disable"):
                tree.complain(place, f"waits for the health of `{other}`, which has no health check")
        elif condition == "service_completed_successfully":
            if services[other].get("restart") in ("always", "unless-stopped"):
                tree.complain(place, f"waits for the end of `{other}`, which is started again and again")
        else:
            tree.complain(place, f"waits for `{other}` by {condition}")
    is_one_shot = str(service.get("restart", "no")).startswith(("no", "on-failure"))
    if not (service.get("healthcheck") or {}).get("test") and not is_one_shot and name not in WITHOUT_HEALTH:
        tree.complain(place, "has no health check")
    asked = (service.get("healthcheck") or {}).get("test")
    if asked and images.is_role(service.get("image", "")) and "--admin" not in asked:
        tree.complain(place, f"its health check {images.NOT_ADMIN}")


def check_rights(tree: Tree, place: str, service: dict) -> None:
    user = str(service.get("user", "")).split(":")[0]
    if not user.isdigit() or user == "0":
        tree.complain(place, f"runs as `{user or 'the image says'}`: name a number other than 0")
    if service.get("read_only") is not True:
        tree.complain(place, "can write to its root")
    if service.get("cap_drop") != ["ALL"]:
        tree.complain(place, "keeps capabilities")
    if "no-new-privileges:true" not in service.get("security_opt", []):
        tree.complain(place, "may gain privileges")
    for port in service.get("ports", []):
        if not str(port).startswith("127.0.0.1:"):
            tree.complain(place, f"port {port} is open to other machines")


def check_mounts(tree: Tree, place: str, service: dict, document: dict) -> None:
    for volume in service.get("volumes", []):
        source = str(volume).split(":")[0]
        if source.startswith("."):
            if not (tree.root / source).exists():
                tree.complain(place, f"mounts {source}, which is not there")
            if not str(volume).endswith(":ro"):
                tree.complain(place, f"may write to {source}")
        elif source not in document.get("volumes", {}):
            tree.complain(place, f"mounts the volume `{source}`, which is not declared")
    for part in ("configs", "secrets", "networks"):
        for used in service.get(part, []):
            name = used["source"] if isinstance(used, dict) else used
            if name not in document.get(part, {}):
                tree.complain(place, f"names `{name}`, which is not among the {part}")
    for name, value in environment(service).items():
        in_secret = re.fullmatch(r"/run/secrets/(\w+)", value)
        if in_secret and in_secret[1] not in service.get("secrets", []):
            tree.complain(place, f"{name} names {value}, which it is not given")


def check_end(tree: Tree, place: str, service: dict, document: dict) -> None:
    """A role has the time to stop that its settings require."""
    for config in service.get("configs", []):
        if config["target"] != "/etc/distillery/distillery.toml":
            continue
        path = document["configs"][config["source"]]["file"]
        text = (tree.root / path).read_text()
        values = tree.config(path, text, environment(service))
        role = service["image"].partition(":")[0].removeprefix("distillery-")
        needed, given = last_call_seconds(values, role), seconds(service.get("stop_grace_period", "10s"))
        if given < needed:
            tree.complain(place, f"stop_grace_period is {given} s, and its last call may take {needed} s")
        for used in re.findall(r'"/run/secrets/(\w+)"', text):
            if used not in service.get("secrets", []):
                tree.complain(place, f"{path} names the secret `{used}`, which it is not given")
        if environment(service).get("DISTILLERY_CONFIG") != config["target"]:
            tree.complain(place, "is given a configuration that it does not read")


def check_secret_files(tree: Tree, document: dict) -> None:
    """Secrets are ignored files, each created by the script."""
    makes = tree.text("scripts/deploy-secrets.sh")
    for name, secret in document.get("secrets", {}).items():
        path = secret.get("file", "")
        if not path.startswith(SECRETS):
            tree.complain(f"{MAIN}: {name}", f"lies in {path or secret}, and not in {SECRETS}")
        elif not re.search(rf"\b{pathlib.PurePath(path).name}\b", makes):
            tree.complain(f"{MAIN}: {name}", f"scripts/deploy-secrets.sh does not make {path}")
    if "/deploy/secrets" not in tree.text(".gitignore").splitlines():
        tree.complain(".gitignore", "deploy/secrets would be committed")
