"""Every setting and variable in deploy/ exists in the program."""

import re

from tree import Tree

# Prose would be matched, too; none names variables of scripts or tests.
VARIABLE = re.compile(r"\bDISTILLERY_[A-Z0-9_]+\b")
TEXTS = {".yml", ".yaml", ".toml", ".md", ".sh", ".sql", ".json", ".py", ""}


def check(tree: Tree) -> None:
    known = tree.variables()
    files = sorted(path for path in (tree.root / "deploy").rglob("*") if path.is_file() and path.suffix in TEXTS)
    files = [path for path in files if "secrets" not in path.relative_to(tree.root).parts]
    named = 0
    for path in [tree.root / "docker-compose.yml", *files]:
        place = str(path.relative_to(tree.root))
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for variable in VARIABLE.findall(line):
                named += 1
                if variable not in known:
                    tree.complain(f"{place}:{number}", f"{variable} is no variable of `distillery config`")
    configs = [path for path in files if path.suffix == ".toml"]
    for path in configs:
        tree.config(str(path.relative_to(tree.root)), path.read_text(), {})
    if not named or not configs:
        tree.complain("deploy", "names no setting: nothing was looked at")
    tree.note(f"settings: {named} variables in {len(files) + 1} files, {len(configs)} configurations")
