"""Check deploy/, docker-compose.yml and .dockerignore, without a container engine or a cluster.

    python tests/python/deploy SECTION --root FOLDER --defaults FILE [--overlay NAME]

SECTION is images, compose, kubernetes or settings; FILE is the output of `distillery config`. Complaints are printed one a
line and the exit code is 1; without any, the lines say what was checked, and it is 0. Some sections only print: queries the
scalers' queries as JSON, context the files that a builder is sent, image the result of the stage --target. With `-` as the
section, standard input has one list of arguments a line, as JSON, and each is answered by a line of JSON: complaints, notes.
scripts/deploy-tools.sh sets up the Python that this runs in.
"""

import argparse
import json
import pathlib
import sys

import compose
import images
import kubernetes
import settings
from tree import Tree

SECTIONS = {
    "images": images.check,
    "compose": compose.check,
    "kubernetes": kubernetes.check,
    "settings": settings.check,
}
PRINTED = {
    "queries": lambda tree, _: print(json.dumps(kubernetes.queries(tree))),
    "context": lambda tree, _: print("\n".join(sorted(images.context_files(tree)))),
    "image": lambda tree, target: print(json.dumps(images.image(tree, target))),
}


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=[*SECTIONS, *PRINTED, "-"])
    parser.add_argument("--root", type=pathlib.Path)
    parser.add_argument("--defaults", type=pathlib.Path)
    parser.add_argument("--overlay", help="only this one")
    parser.add_argument("--target")
    return parser.parse_args(words)


def checked(arguments: argparse.Namespace) -> Tree:
    tree = Tree(arguments.root, arguments.defaults, arguments.overlay)
    SECTIONS[arguments.section](tree)
    return tree


def main() -> None:
    arguments = parse()
    if arguments.section in PRINTED:
        PRINTED[arguments.section](Tree(arguments.root, arguments.defaults, arguments.overlay), arguments.target)
    elif arguments.section == "-":
        for line in sys.stdin:
            tree = checked(parse(json.loads(line)))
            print(json.dumps({"complaints": tree.complaints, "notes": tree.notes}))
    else:
        tree = checked(arguments)
        print("\n".join(tree.complaints or tree.notes))
        sys.exit(1 if tree.complaints else 0)


if __name__ == "__main__":
    main()
