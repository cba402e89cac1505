"""Which train rows are held out, as validation and as test rows: the same ones as the command line holds out.

Rows have one order within each label of a closed set, by a hash of the seed and of what the student reads of them. The first
are test rows, the next validation rows, the others train.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Iterable

from distillery_client._proto import types_pb2

_WHOLE = 1_000_000


def normalised(label: str) -> str:
    """A label as labels are compared."""
    text = unicodedata.normalize("NFKC", label).strip()
    if text.endswith((".", "。")):
        text = text[:-1]
    return " ".join(text.split()).lower()


class Holdout:
    """The division of rows; those that read the same are on one side."""

    def __init__(self, validation: float | None, test: float | None, seed: int) -> None:
        self._validation = math.floor((validation or 0) * _WHOLE + 0.5)
        self._test = math.floor((test or 0) * _WHOLE + 0.5)
        self._seed = seed
        self._sides: dict[int, types_pb2.Split.ValueType] = {}

    def rank(self, row: types_pb2.Example) -> int:
        """The place of a row in the order of its label."""
        digest = hashlib.sha256(b"holdout/1" + self._seed.to_bytes(8, "big"))
        for text in (row.input, row.premise, row.hypothesis, *row.choices):
            content = text.encode()
            # With its length, so that no two lists of texts are one sequence of bytes.
            digest.update(len(content).to_bytes(8, "big") + content)
        return int.from_bytes(digest.digest()[:8], "big")

    def holds_out(self, split: types_pb2.Split.ValueType) -> bool:
        """Whether rows are held out for this split."""
        if split == types_pb2.SPLIT_VALIDATION:
            return self._validation > 0
        return split == types_pb2.SPLIT_TEST and self._test > 0

    def divide(self, train: Iterable[types_pb2.Example], is_closed: bool) -> None:
        """Reads all train rows once. `is_closed`: their labels are those of a closed set."""
        # A row that has several labels counts in the first of them by name; one without a label comes before all.
        strata: dict[int, str] = {}
        for row in train:
            stratum = f"1{normalised(row.label)}" if is_closed and row.HasField("label") else "0"
            rank = self.rank(row)
            strata[rank] = min(stratum, strata.get(rank, stratum))
        ranks: dict[str, list[int]] = {}
        for rank, stratum in strata.items():
            ranks.setdefault(stratum, []).append(rank)
        for ordered in map(sorted, ranks.values()):
            held_out = min(self._part(len(ordered), self._test + self._validation), len(ordered) - 1)
            test = min(self._part(len(ordered), self._test), held_out)
            for place, rank in enumerate(ordered[:held_out]):
                self._sides[rank] = types_pb2.SPLIT_TEST if place < test else types_pb2.SPLIT_VALIDATION

    def split_of(self, row: types_pb2.Example) -> types_pb2.Split.ValueType:
        """The split of one of the rows that were divided."""
        return self._sides.get(self.rank(row), types_pb2.SPLIT_TRAIN)

    @staticmethod
    def _part(rows: int, millionths: int) -> int:
        # Rounded half up, in integers: the same everywhere.
        return (rows * millionths * 2 + _WHOLE) // (2 * _WHOLE)
