"""The Dockerfile: stages, copies and resulting images; the context by .dockerignore."""

import os
import pathlib
import re
import shlex
import subprocess
import sys

from tree import Tree

DOCKERFILE = "deploy/images/Dockerfile"
TARGETS = {"harvester", "trainer", "trainer-cuda", "inference", "inference-cuda", "all", "teacher"}
LABELS = {"title", "description", "version", "revision", "vendor", "documentation"}
# Sent to the builder with every build.
CONTEXT_BYTES_MAX = 8 * 1024 * 1024
NO_LIBTORCH = "harvester"
# What is wrong with a probe of a role: callers can take every place of its gRPC port.
NOT_ADMIN = "does not ask the admin port (`distillery health --admin`), which answers however many callers there are"


class Stage:
    """A stage: its base and its instructions."""

    def __init__(self, name: str, base: str):
        self.name, self.base = name, base
        self.instructions: list[tuple[str, str]] = []

    def copies(self):
        """(stage or None, sources) of every COPY."""
        for name, rest in self.instructions:
            if name == "COPY":
                words = shlex.split(rest)
                origin = next((word.split("=", 1)[1] for word in words if word.startswith("--from=")), None)
                yield origin, [word for word in words if not word.startswith("--")][:-1]


def is_role(image: str) -> bool:
    """Whether an image serves one of our roles, or all of them."""
    name = image.partition(":")[0].removeprefix("distillery-")
    return image.startswith("distillery-") and name in TARGETS - {"teacher"}


def instructions(text: str) -> list[tuple[str, str]]:
    """Instruction and rest of every logical line."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    split = [line.strip().split(None, 1) for line in joined.splitlines() if line.strip()]
    return [(words[0].upper(), words[1] if len(words) > 1 else "") for words in split]


def stages(tree: Tree) -> dict[str, Stage]:
    """Every stage by name, in order."""
    found: dict[str, Stage] = {}
    arguments = {}
    for name, rest in instructions(tree.text(DOCKERFILE)):
        if name == "FROM":
            base, _, stage = rest.partition(" AS ")
            base = re.sub(r"\$\{(\w+)\}", lambda match: arguments.get(match[1], match[0]), base.strip())
            found[stage.strip()] = Stage(stage.strip(), base)
        elif not found:
            if name == "ARG":
                key, _, value = rest.partition("=")
                arguments[key] = value
            else:
                tree.complain(DOCKERFILE, f"{name} stands before the first stage")
        else:
            list(found.values())[-1].instructions.append((name, rest))
    return found


def chain(found: dict[str, Stage], name: str) -> list[Stage]:
    """A stage and its bases, the first base first."""
    links = []
    while name in found:
        links.insert(0, found[name])
        name = found[name].base
    return links


def reached(found: dict[str, Stage], name: str) -> set[str]:
    """Every stage that a stage needs, including itself."""
    needed, open_ = set(), [name]
    while open_:
        for stage in chain(found, open_.pop()):
            if stage.name not in needed:
                needed.add(stage.name)
                open_ += [origin for origin, _ in stage.copies() if origin]
    return needed


def image(tree: Tree, target: str) -> dict:
    """The resulting image of a stage: user, variables, installed packages."""
    ends: dict = {"environment": {}, "packages": []}
    for stage in chain(stages(tree), target):
        for name, rest in stage.instructions:
            if name == "ENV":
                ends["environment"] |= dict(word.split("=", 1) for word in shlex.split(rest))
            if name == "USER":
                ends["user"] = rest
            if name == "RUN" and (installed := re.search(r"apt-get install (.*?)(?:&&|$)", rest)):
                ends["packages"] += [word for word in installed[1].split() if not word.startswith("-")]
    return ends


def check(tree: Tree) -> None:
    found = stages(tree)
    context = set(context_files(tree))
    for name in sorted(TARGETS - found.keys()):
        tree.complain(DOCKERFILE, f"has no target `{name}`")
    for stage in found.values():
        check_stage(tree, found, stage, context)
    for name in sorted(TARGETS & found.keys()):
        check_target(tree, found, name)
    if NO_LIBTORCH in found:
        for name in sorted(reached(found, NO_LIBTORCH)):
            if "libtorch" in name or "student" in name:
                tree.complain(DOCKERFILE, f"`{NO_LIBTORCH}` needs the stage `{name}`: it is to have no libtorch")
    check_context(tree, context)
    check_lint(tree)
    tree.note(f"images: {len(found)} stages, {len(TARGETS)} targets")


def check_stage(tree: Tree, found: dict[str, Stage], stage: Stage, context: set[str]) -> None:
    place = f"{DOCKERFILE}: {stage.name}"
    earlier = list(found)[: list(found).index(stage.name)]
    if stage.base not in earlier:
        repository, _, tag = stage.base.partition(":")
        if not tag or tag == "latest":
            tree.complain(place, f"`{stage.base}` has no version")
        if "." in repository.split("/")[0]:
            tree.complain(place, f"`{stage.base}` names a registry: whoever builds decides on one")
    for origin, sources in stage.copies():
        if origin is not None and origin not in earlier:
            tree.complain(place, f"copies from `{origin}`, which is no stage before it")
        for source in sources if origin is None else []:
            inside = source == "." or any(path == source or path.startswith(f"{source}/") for path in context)
            if not inside:
                tree.complain(place, f"copies `{source}`, which .dockerignore leaves out or which is not there")
    for name, rest in stage.instructions:
        script = re.match(r"(deploy/images/\S+|scripts/\S+)", rest)
        if name == "RUN" and script and not os.access(tree.root / script[1], os.X_OK):
            tree.complain(place, f"runs {script[1]}, which is no program")
        if name == "ADD":
            tree.complain(place, "ADD fetches and unpacks by itself: write COPY")


def check_target(tree: Tree, found: dict[str, Stage], name: str) -> None:
    place = f"{DOCKERFILE}: {name}"
    ends: dict[str, str] = {}
    labels = set()
    for stage in chain(found, name):
        for instruction, rest in stage.instructions:
            ends[instruction] = rest
            if instruction == "LABEL":
                labels |= set(re.findall(r"org\.opencontainers\.image\.(\w+)=", rest))
    user = ends.get("USER", "root").split(":")[0]
    if not user.isdigit() or user == "0":
        tree.complain(place, f"runs as `{user}`: only a number other than 0 is known not to be root")
    for instruction in ("HEALTHCHECK", "ENTRYPOINT", "CMD", "EXPOSE", "STOPSIGNAL"):
        if instruction not in ends:
            tree.complain(place, f"has no {instruction}")
    if is_role(f"distillery-{name}") and '"--admin"' not in ends.get("HEALTHCHECK", ""):
        tree.complain(place, f"its HEALTHCHECK {NOT_ADMIN}")
    for missing in sorted(LABELS - labels):
        tree.complain(place, f"has no label org.opencontainers.image.{missing}")
    role = re.search(r'"--role", "(\w+)"', ends.get("CMD", ""))
    if name != "teacher" and (not role or role[1] != name.removesuffix("-cuda")):
        tree.complain(place, f"serves {role[1] if role else 'nothing'}")


def context_files(tree: Tree) -> list[str]:
    """The build context by .dockerignore: the last matching pattern decides."""
    rules = []
    for line in tree.text(".dockerignore").splitlines():
        line = line.strip()
        if line and not line.startswith("#"):
            rules.append((line.startswith("!"), pattern(line.lstrip("!").strip("/"))))
    files = []
    for folder, folders, names in os.walk(tree.root):
        relative = pathlib.PurePosixPath(pathlib.Path(folder).relative_to(tree.root).as_posix())
        # Excluded by `*`, never included again, and large.
        folders[:] = [name for name in folders if (relative / name).as_posix() not in ("target", ".git", ".local")]
        for name in names:
            path = (relative / name).as_posix()
            kept = True
            for brings_back, rule in rules:
                if rule.match(path):
                    kept = brings_back
            if kept:
                files.append(path)
    return files


def pattern(text: str) -> re.Pattern:
    """A pattern of .dockerignore matches a path and everything below it."""
    parts = []
    for token in re.split(r"(\*\*/?|\*|\?)", text):
        parts.append({"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(token, re.escape(token)))
    return re.compile("".join(parts) + r"(?:/.*)?\Z")


def check_context(tree: Tree, context: set[str]) -> None:
    size = sum((tree.root / path).stat().st_size for path in context)
    if size > CONTEXT_BYTES_MAX:
        tree.complain(".dockerignore", f"the context has {size} bytes, and {CONTEXT_BYTES_MAX} are enough")
    for path in sorted(context):
        if "secret" in pathlib.PurePosixPath(path).parts or path.startswith((".git/", "deploy/secrets", ".env")):
            tree.complain(".dockerignore", f"`{path}` is sent to the builder")
    for needed in ("Cargo.toml", "Cargo.lock", "crates/cli/src/main.rs", "scripts/rustc-workspace", "tests/Cargo.toml"):
        if needed not in context:
            tree.complain(".dockerignore", f"`{needed}` is not sent to the builder")
    tree.note(f"images: a context of {len(context)} files, {size / 1024:.0f} KiB")


def check_lint(tree: Tree) -> None:
    """hadolint, with shellcheck for RUN. Debian packages follow the release's updates, so their versions are not pinned
    (DL3008)."""
    hadolint = pathlib.Path(sys.executable).parent / "hadolint"
    said = subprocess.run(
        [hadolint, "--no-color", "--ignore", "DL3008", tree.root / DOCKERFILE], capture_output=True, text=True
    )
    for line in (said.stdout + said.stderr).splitlines():
        tree.complain(DOCKERFILE, f"hadolint: {line.removeprefix(str(tree.root))}")
    if said.returncode != 0 and not said.stdout + said.stderr:
        tree.complain(DOCKERFILE, f"hadolint ended with {said.returncode}")
