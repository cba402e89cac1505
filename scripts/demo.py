"""Print what the demo came to: teacher and students on the same test rows, from the JSON that the verbs printed."""

import json
import pathlib
import sys


def read(path: pathlib.Path) -> dict:
    return json.loads(path.read_text())


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def row(who: str, measured: dict, parameters: int | None) -> list[str]:
    interval = f"{percent(measured['low'])} to {percent(measured['high'])}"
    size = "-" if parameters is None else f"{parameters:,}"
    return [who, percent(measured["accuracy"]), interval, f"{measured['rows']:,}", size]


def table(rows: list[list[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append(" " + "   ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)


def report(folder: pathlib.Path) -> str:
    step_by_step, labels_only, compared = (
        read(folder / f"{name}.json") for name in ("step-by-step", "labels-only", "compared")
    )
    teacher, difference = step_by_step["teacher"], compared["difference"]
    measured = {
        "accuracy": teacher["accuracy"],
        "low": teacher["accuracy_low"],
        "high": teacher["accuracy_high"],
        "rows": teacher["accuracy_rows"],
    }
    rows = [
        ["", "accuracy", "95% interval", "test rows", "parameters"],
        row(f"teacher {teacher['name']}", measured, None),
        row("student, labels only", compared["other"], labels_only["parameters"]),
        row("student, step by step", compared["model"], step_by_step["student"]["parameters"]),
    ]
    value, low, high = (f"{100 * difference[key]:+.1f}" for key in ("value", "low", "high"))
    return "\n".join(
        [
            table(rows),
            "",
            f"step by step less labels only, paired: {value} points (95% interval {low} to {high}): {compared['finding']}",
            f"prompts {teacher['prompts']:,} ({teacher['cached']:,} from the store), "
            f"rationales accepted {teacher['accepted']:,}, "
            f"tokens in {teacher['tokens_in']:,}, out {teacher['tokens_out']:,}",
        ]
    )


def main() -> None:
    if sys.argv[1] == "--checkpoint":
        print(read(pathlib.Path(sys.argv[2]))["checkpoint_dir"])
    else:
        print(report(pathlib.Path(sys.argv[1])))


main()
