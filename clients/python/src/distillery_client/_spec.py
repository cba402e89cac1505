"""A specification as people write it, a TOML file or the same as a dict, as the message that is submitted."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from distillery_client._errors import DistilleryError, Violation, invalid, opened, refused, suggestion
from distillery_client._proto import spec_pb2

BUILT_IN = ("equation", "choice", "nli", "esnli", "classify", "generate")
# The closed sets of built-in tasks, in their order.
_BUILT_IN_CLOSED = {name: ("entailment", "neutral", "contradiction") for name in ("nli", "esnli")}
_SECTIONS = ("teacher", "judging", "student", "training")
# `study` is the command line's own: other verbs pass it over.
_KEYS = ("name", "task", "data", *_SECTIONS, "study")
_FILES = ("file", "train", "validation", "test")
_DATA_KEYS = ("dataset", *_FILES, "columns", "validation_share", "test_share", "split_seed")
_TASK_KEYS = ("name", "instruction", "template", "exemplars", "stop", "answer", "labels", "metric", "tokens_max")
_TASK_REQUIRED = ("name", "template", "stop", "answer", "labels", "metric")
_COLUMN_FIELDS = ("id", "split", "input", "choices", "premise", "hypothesis", "label", "rationale")
_FILE_BYTES_MAX = 1024 * 1024

Path = str | os.PathLike[str]
_Table = Mapping[str, Any]


@dataclass
class Data:
    """`[data]`: where rows come from."""

    dataset: str | None = None
    """The name of an imported dataset, in place of files."""
    files: list[tuple[str | None, str]] = field(default_factory=list)
    """Each with the split that its rows belong to; ``None`` where they say so themselves."""
    columns: dict[str, str] = field(default_factory=dict)
    """Which column of the files is which field."""
    validation_share: float | None = None
    test_share: float | None = None
    split_seed: int = 0


@dataclass
class Spec:
    """A specification that can be submitted, but for its rows."""

    message: spec_pb2.DistillationSpec
    data: Data | None
    """What its `[data]` says; absent where there is none."""

    @property
    def closed_labels(self) -> Sequence[str] | None:
        """The labels of the task's closed set; ``None`` where it has none."""
        if self.message.WhichOneof("task_source") == "task_name":
            return _BUILT_IN_CLOSED.get(self.message.task_name)
        labels = self.message.task.labels
        return list(labels.closed.labels) if labels.WhichOneof("kind") == "closed" else None

    @property
    def leaves_label_open(self) -> bool:
        """Whether the student learns the teacher's labels where no train row has one: decided as the command line does."""
        judging = self.message.judging
        needs_gold = judging.agree or judging.hint in (spec_pb2.HINT_AFTER, spec_pb2.HINT_FIRST)
        return not judging.label and not needs_gold and self.message.teacher.profile != "none"


def read(spec: Path | _Table) -> Spec:
    """The specification in a TOML file, or in a mapping with the same keys.

    Raises:
        DistilleryError: ``INVALID_ARGUMENT``, with every mistake by its key.
    """
    if isinstance(spec, Mapping):
        return _Reader("").spec(spec)
    return _Reader(os.path.dirname(os.fspath(spec))).spec(_toml(spec))


def _toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError:
            raise refused(os.fspath(path), "needs a reader of TOML: pip install 'distillery-client[toml]'") from None
    try:
        with open(path, "rb") as file:
            content = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise opened(path, error) from None
    if len(content) > _FILE_BYTES_MAX:
        raise refused(os.fspath(path), f"is longer than {_FILE_BYTES_MAX} bytes: a specification is not")
    try:
        table: dict[str, Any] = tomllib.loads(content.decode())
        return table
    except ValueError as error:
        raise refused(os.fspath(path), f"is not TOML: {error}") from None


class _Reader:
    """Collects what can be read, and every mistake in the rest."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._found: list[Violation] = []

    def _complain(self, name: str, message: str) -> None:
        self._found.append(Violation(name, message))

    def spec(self, table: _Table) -> Spec:
        message = spec_pb2.DistillationSpec()
        self._known(table, "", _KEYS)
        message.name = self._text(table, "", "name") or ""
        if "task" in table:
            self._task(table["task"], message)
        else:
            self._complain("task", f"is missing: name a built-in task ({', '.join(BUILT_IN)}) or a file that ends in .toml")
        for section in _SECTIONS:
            content = table.get(section, {})
            if section == "student" and isinstance(content, Mapping) and "init" in content:
                self._complain("student.init", "is the command line's: register the folder with it, and name it as `base`")
                content = {key: value for key, value in content.items() if key != "init"}
            self._section(content, section, getattr(message, section))
        data = self._data(table["data"]) if "data" in table else None
        if self._found:
            raise invalid(self._found)
        return Spec(message, data)

    def _known(self, table: _Table, prefix: str, keys: Sequence[str]) -> None:
        for key in table:
            if key not in keys:
                self._complain(f"{prefix}{key}", f"is not a known key{suggestion(str(key), keys)}")

    def _text(self, table: _Table, prefix: str, key: str, *, is_required: bool = True) -> str | None:
        value = table.get(key)
        if isinstance(value, str):
            return value
        if value is not None:
            self._complain(f"{prefix}{key}", f"must be text, and is {_kind(value)}")
        elif is_required:
            self._complain(f"{prefix}{key}", "is missing")
        return None

    def _task(self, task: Any, message: spec_pb2.DistillationSpec) -> None:
        if isinstance(task, Mapping):
            self._own_task(task, message.task)
        elif not isinstance(task, str):
            self._complain("task", f"must be the name of a task, or a table, and is {_kind(task)}")
        elif task in BUILT_IN:
            message.task_name = task
        elif task.endswith(".toml"):
            try:
                table = _toml(os.path.join(self._folder, task))
            except DistilleryError as error:
                self._found += [Violation("task", str(violation)) for violation in error.violations]
            else:
                self._own_task(table, message.task)
        else:
            self._complain(
                "task", f"`{task}` is neither a built-in task nor a path that ends in .toml{suggestion(task, BUILT_IN)}"
            )

    def _own_task(self, table: _Table, task: spec_pb2.Task) -> None:
        """A table as a task file has it: the message has the same, under flatter names."""
        self._known(table, "task.", _TASK_KEYS)
        for key in _TASK_REQUIRED:
            if key not in table:
                self._complain(f"task.{key}", "is missing")
        for key in ("name", "instruction", "template", "stop", "metric", "tokens_max"):
            if key in table:
                self._field(f"task.{key}", _fields(task)[key], table[key], task)
        answer = table.get("answer", {})
        if isinstance(answer, Mapping):
            self._known(answer, "task.answer.", ("marker", "shape"))
            for key in ("marker", "shape"):
                if key in answer:
                    self._field(f"task.answer.{key}", _fields(task)[f"answer_{key}"], answer[key], task)
                elif "answer" in table:
                    self._complain(f"task.answer.{key}", "is missing")
        else:
            self._complain("task.answer", f"must be a table, and is {_kind(answer)}")
        exemplars = table.get("exemplars", [])
        if isinstance(exemplars, Sequence) and not isinstance(exemplars, str):
            for place, exemplar in enumerate(exemplars):
                self._section(exemplar, f"task.exemplars[{place}]", task.exemplars.add())
        else:
            self._complain("task.exemplars", f"must be a list of tables, and is {_kind(exemplars)}")
        if "labels" in table:
            self._labels(table["labels"], task.labels)

    def _labels(self, labels: Any, message: spec_pb2.LabelSet) -> None:
        if labels == "open":
            message.open.SetInParent()
        elif labels == "choices":
            message.choices.SetInParent()
        elif isinstance(labels, Mapping) and list(labels) == ["closed"]:
            closed = message.closed
            closed.SetInParent()
            self._field("task.labels.closed", _fields(closed)["labels"], labels["closed"], closed)
        else:
            self._complain("task.labels", "must be `open`, `choices`, or a table with the list `closed`")

    def _section(self, table: Any, name: str, message: Message) -> None:
        """A table whose keys are the message's fields."""
        if not isinstance(table, Mapping):
            self._complain(name, f"must be a table, and is {_kind(table)}")
            return
        fields = _fields(message)
        self._known(table, f"{name}.", list(fields))
        for key, value in table.items():
            # An absent key and None are the same: a dict may be filled from arguments.
            if key in fields and value is not None:
                self._field(f"{name}.{key}", fields[key], value, message)

    def _field(self, name: str, known: FieldDescriptor, value: Any, message: Message) -> None:
        if known.message_type is not None and not known.is_repeated:
            self._section(value, name, getattr(message, known.name))
            return
        values = value if known.is_repeated else [value]
        if not isinstance(values, Sequence) or isinstance(values, str):
            self._complain(name, f"must be a list of texts, and is {_kind(value)}")
            return
        read = []
        for place, one in enumerate(values):
            try:
                read.append(_value(known, one))
            except ValueError as error:
                self._complain(f"{name}[{place}]" if known.is_repeated else name, str(error))
        if known.is_repeated:
            getattr(message, known.name).extend(read)
        elif read:
            setattr(message, known.name, read[0])

    def _data(self, table: Any) -> Data | None:
        if not isinstance(table, Mapping):
            self._complain("data", f"must be a table, and is {_kind(table)}")
            return None
        self._known(table, "data.", _DATA_KEYS)
        data = Data(dataset=self._text(table, "data.", "dataset", is_required=False))
        for key in _FILES:
            file = self._text(table, "data.", key, is_required=False)
            if file is not None:
                data.files.append((None if key == "file" else key, os.path.join(self._folder, file)))
        data.columns = self._columns(table.get("columns", {}))
        data.validation_share = self._share(table, "validation_share", "validation")
        data.test_share = self._share(table, "test_share", "test")
        if (data.validation_share or 0) + (data.test_share or 0) >= 1:
            self._complain(
                "data.test_share", "leaves no train row together with `validation_share`: their sum must be below 1"
            )
        seed = table.get("split_seed", 0)
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            self._complain("data.split_seed", "must be an integer from 0")
        else:
            data.split_seed = seed
        if "split_seed" in table and data.validation_share is None and data.test_share is None:
            self._complain("data.split_seed", "only makes sense with `data.validation_share` or `data.test_share`")
        if data.dataset is not None and len(table) > 1:
            self._complain("data.dataset", "names an imported dataset, which brings its own splits: remove the other keys")
        if data.dataset is None and not any(split in (None, "train") for split, _ in data.files):
            self._complain("data", 'has no train rows: add `train = "rows.jsonl"` or `file = ...`')
        return data

    def _columns(self, columns: Any) -> dict[str, str]:
        if not isinstance(columns, Mapping):
            self._complain("data.columns", f"must be a table of fields and columns, and is {_kind(columns)}")
            return {}
        self._known(columns, "data.columns.", _COLUMN_FIELDS)
        read = {key: self._text(columns, "data.columns.", key) or "" for key in columns}
        for place, (key, column) in enumerate(read.items()):
            if column in list(read.values())[:place]:
                self._complain(f"data.columns.{key}", f"is column `{column}`, as is another field: one column is one field")
        return read

    def _share(self, table: _Table, key: str, split: str) -> float | None:
        share = table.get(key)
        if share is None:
            return None
        if isinstance(share, bool) or not isinstance(share, (int, float)):
            self._complain(f"data.{key}", f"must be a number, and is {_kind(share)}")
            return None
        # In millionths, as shares are kept.
        if not math.isfinite(share) or not 1 <= round(share * 1e6) < 1_000_000:
            self._complain(f"data.{key}", f"is {share}: it must be above 0 and below 1")
            return None
        if split in table:
            self._complain(f"data.{key}", f"contradicts `data.{split}`, which names these rows: remove one of them")
        return float(share)


def _fields(message: Message) -> Mapping[str, FieldDescriptor]:
    # The type of the descriptors that are written in C stands for the same.
    return cast("Mapping[str, FieldDescriptor]", message.DESCRIPTOR.fields_by_name)


_LIMITS = {
    FieldDescriptor.TYPE_UINT32: 2**32,
    FieldDescriptor.TYPE_UINT64: 2**64,
}


def _value(known: FieldDescriptor, value: Any) -> Any:
    """One value of a field.

    Raises:
        ValueError: It is none; in words.
    """
    if known.enum_type is not None:
        return _enum(known.enum_type, value)
    read: dict[int, tuple[str, Callable[[Any], bool]]] = {
        FieldDescriptor.TYPE_STRING: ("text", lambda one: isinstance(one, str)),
        FieldDescriptor.TYPE_BOOL: ("true or false", lambda one: isinstance(one, bool)),
        FieldDescriptor.TYPE_DOUBLE: ("a number", lambda one: isinstance(one, (int, float)) and not isinstance(one, bool)),
    }
    if known.type in _LIMITS:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _LIMITS[known.type]:
            raise ValueError(f"must be an integer from 0, and is {_kind(value)}")
        return value
    words, fits = read[known.type]
    if not fits(value):
        raise ValueError(f"must be {words}, and is {_kind(value)}")
    return float(value) if known.type == FieldDescriptor.TYPE_DOUBLE else value


def names(enum: EnumDescriptor) -> dict[str, int]:
    """The values of an enumeration by the names that people write: without the prefix, in lower case, without the unset
    one."""
    prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
    return {value.name.removeprefix(prefix).lower(): value.number for value in enum.values if value.number}


def _enum(enum: EnumDescriptor, value: Any) -> int:
    known = names(enum)
    if enum.name == "Hint" and isinstance(value, bool):
        # As specifications of 0.1.0 write it.
        return spec_pb2.HINT_AFTER if value else spec_pb2.HINT_OFF
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"is {_kind(value)}: write one of {', '.join(known)}")
    return known[value]


def _kind(value: Any) -> str:
    """What a wrong value is, for a message."""
    if value is None or isinstance(value, (bool, int, float)):
        return str(value)
    if isinstance(value, str):
        return f"`{value}`"
    return "a table" if isinstance(value, Mapping) else f"of type {type(value).__name__}"
