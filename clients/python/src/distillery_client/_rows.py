"""Rows as callers have them, and as messages."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from distillery_client._errors import VIOLATIONS_MAX, Violation, invalid, opened, refused, suggestion
from distillery_client._proto import types_pb2

Row = Mapping[str, Any]
"""A row by its fields: ``input`` (or ``premise`` and ``hypothesis``), and optional ``id``, ``split``, ``choices``,
``label``, ``rationale``."""
Rows = str | os.PathLike[str] | Iterable[Row]
"""Rows, or the path of a file of them (``.jsonl``, ``.json``, ``.csv``, ``.tsv``)."""

FIELDS = ("id", "split", "input", "choices", "premise", "hypothesis", "label", "rationale")
SPLITS = {
    "train": types_pb2.SPLIT_TRAIN,
    "validation": types_pb2.SPLIT_VALIDATION,
    "valid": types_pb2.SPLIT_VALIDATION,
    "dev": types_pb2.SPLIT_VALIDATION,
    "test": types_pb2.SPLIT_TEST,
}
# Who wrote a rationale that came in a column.
_TEACHER = "import"
# What separates cells, whichever separates the header.
_SEPARATORS = ",;\t|"
# The index of a table that pandas wrote.
_INDEX = ("", "__index_level_0__", "Unnamed: 0")


class _Bare(str):
    """A number of JSON, digit for digit."""


def examples(rows: Rows, split: str | None, columns: Mapping[str, str] | None = None) -> Iterator[types_pb2.Example]:
    """The rows in order, as messages; those of a `split` belong to it. `columns` says which column of a file is which field.

    Raises:
        DistilleryError: ``INVALID_ARGUMENT``, with every mistake of the rows (the first 20); nothing is yielded after one.
    """
    found: list[Violation] = []
    for place, row in _placed(rows, split, columns):
        mistakes: list[Violation] = []
        message = example(row, mistakes, split)
        if mistakes:
            found += [Violation(f"{place}{mistake.field}", mistake.message) for mistake in mistakes]
            if len(found) >= VIOLATIONS_MAX:
                break
        elif not found:
            yield message
    if found:
        raise invalid(found)


def _placed(rows: Rows, split: str | None, columns: Mapping[str, str] | None) -> Iterator[tuple[str, Row]]:
    """Each row, with where it stands as the beginning of a field's name."""
    if isinstance(rows, (str, os.PathLike)):
        yield from ((f"{os.fspath(rows)}:{line}: ", _mapped(row, columns)) for line, row in _of_file(rows))
        return
    for place, row in enumerate(rows):
        if not isinstance(row, Mapping):
            words = f"is {type(row).__name__}: a row is a mapping, such as {{'input': '...', 'label': '...'}}"
            raise refused(f"{split or 'rows'}[{place}]", words)
        yield f"{split or 'rows'}[{place}].", row


def _mapped(row: Row, columns: Mapping[str, str] | None) -> Row:
    """The fields of a row whose columns have other names; columns that are no field are then passed over."""
    if not columns:
        return row
    own = {field: row[field] for field in FIELDS if field in row and field not in columns.values()}
    return own | {field: row.get(column) for field, column in columns.items()}


def _of_file(path: str | os.PathLike[str]) -> Iterator[tuple[int, Row]]:
    """The rows of a file, with their lines."""
    readers = {".jsonl": _json_lines, ".ndjson": _json_lines, ".json": _json_lines, ".csv": _csv, ".tsv": _csv}
    name = os.fspath(path)
    read = readers.get(os.path.splitext(name)[1].lower())
    if read is None:
        words = "its extension names no format that is read here: use .jsonl or .csv, or pass the rows themselves"
        raise refused(name, words)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield from read(name, file)
    except OSError as error:
        raise opened(path, error) from None
    except UnicodeDecodeError as error:
        raise refused(name, f"is not UTF-8 (byte {error.start} of a part of it): save it as UTF-8") from None


def _json_lines(name: str, file: Iterable[str]) -> Iterator[tuple[int, Row]]:
    """One object a line. A file that is one array is held in memory as a whole."""
    for line, text in enumerate(lines := iter(file), start=1):
        if not text.strip():
            continue
        if text.lstrip().startswith("["):
            # A whole array has no lines to name: its rows are counted.
            rows = _parsed(name, line, text + "".join(lines))
            if not isinstance(rows, list):
                raise refused(f"{name}:{line}", "is no row: write one JSON object a line")
            yield from ((place, _object(name, place, row)) for place, row in enumerate(rows, start=1))
            return
        yield line, _object(name, line, _parsed(name, line, text))


def _parsed(name: str, line: int, text: str) -> Any:
    try:
        return json.loads(text, parse_int=_Bare, parse_float=_Bare, parse_constant=lambda _: None)
    except ValueError as error:
        raise refused(f"{name}:{line}", f"is not JSON: {error}") from None


def _object(name: str, line: int, row: Any) -> Row:
    if not isinstance(row, dict):
        raise refused(f"{name}:{line}", "is no row: write one JSON object a line")
    return row


def _csv(name: str, file: Iterable[str]) -> Iterator[tuple[int, Row]]:
    lines = iter(file)
    header = next(lines, "")
    separator = max(_SEPARATORS, key=header.count)
    columns = next(csv.reader([header], delimiter=separator), [])
    if not columns:
        raise refused(name, "is empty: its first line names the columns")
    reader = csv.reader(lines, delimiter=separator, strict=True)
    try:
        for cells in reader:
            line = reader.line_num + 1
            if not cells:
                continue
            if len(cells) != len(columns):
                raise refused(f"{name}:{line}", f"has {len(cells)} cells, and the header has {len(columns)}")
            named = zip(columns, cells)
            row = {column: cell or None for column, cell in named if column not in _INDEX}
            if row.get("choices"):
                row["choices"] = _parsed(name, line, str(row["choices"]))
            yield line, row
    except csv.Error as error:
        raise refused(f"{name}:{reader.line_num + 1}", f"is not CSV: {error}") from None


def example(row: Row, found: list[Violation], split: str | None = None) -> types_pb2.Example:
    """The message of a row; what cannot be read is added to `found`."""
    message = types_pb2.Example(split=SPLITS[split or "train"])
    for name, value in row.items():
        if name not in FIELDS:
            found.append(Violation(str(name), f"is not a field of a row{suggestion(str(name), FIELDS)}"))
            continue
        value = _plain(value)
        if value is None:
            continue
        if name == "choices":
            message.choices.extend(_texts(value, found))
        elif name == "split":
            message.split = _split(value, split, found)
        elif name in ("id", "label") and isinstance(value, (bool, int, float)):
            text = str(value).lower() if isinstance(value, bool) else str(value)
            setattr(message, "key" if name == "id" else name, text)
        elif not isinstance(value, str) or (isinstance(value, _Bare) and name not in ("id", "label")):
            kind = "a number" if isinstance(value, (_Bare, int, float)) else type(value).__name__
            found.append(Violation(name, f"is {kind}: it must be text"))
        elif name == "rationale":
            if value.strip():
                message.answers.add(teacher=_TEACHER, rationale=_sound(value))
        else:
            setattr(message, "key" if name == "id" else name, _sound(value))
    return message


def _plain(value: Any) -> Any:
    """A value of numpy or pandas as one of Python; ``None`` for a number that is none."""
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "ndim", None) == 0:
        value = item()
    # pandas.NA and NaT have no type that can be named without pandas.
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    return None if isinstance(value, float) and math.isnan(value) else value


def _texts(value: Any, found: list[Violation]) -> list[str]:
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
        found.append(Violation("choices", f"is {type(value).__name__}: it must be a list of texts"))
        return []
    texts = []
    for place, text in enumerate(value):
        if isinstance(text, str) and not isinstance(text, _Bare):
            texts.append(_sound(text))
        else:
            found.append(Violation(f"choices[{place}]", "is not text: write it in quotes"))
    return texts


def _split(value: Any, given: str | None, found: list[Violation]) -> types_pb2.Split.ValueType:
    split = SPLITS.get(value) if isinstance(value, str) else None
    if split is None:
        found.append(Violation("split", f"is {value!r}: write `train`, `validation` or `test`"))
        return types_pb2.SPLIT_TRAIN
    if given is not None and split != SPLITS[given]:
        found.append(Violation("split", f"is `{value}`, and all these rows were given as `{given}`: remove one of the two"))
    return split


def _sound(text: str) -> str:
    """The text, with U+FFFD for half of a surrogate pair, as the services read it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return str(text)
