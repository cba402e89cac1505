"""Checks what lies in deploy/, docker-compose.yml and .dockerignore, without an engine and without a cluster.

    python tests/python/deploy SECTION --root FOLDER --defaults FILE [--overlay NAME]

SECTION is images, compose, kubernetes or settings; FILE is what `distillery config` prints. Every complaint is one line on
standard output, and then the exit code is 1; without any, the lines say what was looked at, and it is 0. Other sections only
print: queries the scalers' queries as JSON, context the files that a builder is sent, image what the stage --target ends
with. scripts/deploy-tools.sh sets up the Python that this runs in.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=[*SECTIONS, *PRINTED])
    parser.add_argument("--root", type=pathlib.Path, required=True)
    parser.add_argument("--defaults", type=pathlib.Path, default=None)
    parser.add_argument("--overlay", default=None, help="only this one")
    parser.add_argument("--target", default=None)
    arguments = parser.parse_args()
    tree = Tree(arguments.root, arguments.defaults, arguments.overlay)
    if arguments.section in PRINTED:
        PRINTED[arguments.section](tree, arguments.target)
        return
    SECTIONS[arguments.section](tree)
    for line in tree.complaints or tree.notes:
        print(line)
    sys.exit(1 if tree.complaints else 0)


if __name__ == "__main__":
    main()
