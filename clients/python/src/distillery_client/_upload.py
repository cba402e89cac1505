"""Uploads: rows are read once into a temporary file, checked and known by their content, and then sent in chunks.

Rows of any number cost the memory of a few chunks, and what interrupts an upload costs only the chunks that were in flight.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import struct
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence

import grpc

from distillery_client._channel import Line
from distillery_client._errors import of_call, refused
from distillery_client._holdout import Holdout
from distillery_client._proto import datasets_pb2, types_pb2
from distillery_client._proto.datasets_pb2_grpc import DatasetsServiceStub
from distillery_client._rows import Rows, examples

# Half of what one message may have is left to the row that fills it.
CHUNK_BYTES_MAX = 2 * 1024 * 1024
CHUNK_ROWS_MAX = 500
# Chunks of one stream, so that each stream ends within its deadline, and tells how far it came.
_STREAM_CHUNKS = 4
# Rows up to here stay in memory.
_MEMORY_BYTES_MAX = 8 * 1024 * 1024
_LENGTH = struct.Struct("<I")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


class Spool:
    """Rows in a temporary file."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES_MAX)
        self._digest = hashlib.sha256()
        # A stream that failed may still be reading while the next one begins.
        self._lock = threading.Lock()
        self._end = 0
        self.count = 0
        self.has_train_label = False

    def add(self, row: types_pb2.Example) -> None:
        """Appends a row."""
        content = row.SerializeToString(deterministic=True)
        framed = _LENGTH.pack(len(content)) + content
        with self._lock:
            self._file.seek(self._end)
            self._file.write(framed)
        self._end += len(framed)
        self._digest.update(framed)
        self.count += 1
        self.has_train_label |= row.split == types_pb2.SPLIT_TRAIN and row.HasField("label")

    def rows(self) -> Iterator[types_pb2.Example]:
        """The rows in order."""
        return map(types_pb2.Example.FromString, self.contents(0))

    def contents(self, start: int) -> Iterator[bytes]:
        """The messages of the rows from `start` on."""
        place = 0
        for row in range(self.count):
            with self._lock:
                self._file.seek(place)
                (length,) = _LENGTH.unpack(self._file.read(_LENGTH.size))
                content = self._file.read(length) if row >= start else b""
            place += _LENGTH.size + length
            if row >= start:
                yield content

    def request_id(self, name: str) -> str:
        """The upload's name for itself: the same rows under the same name are the same upload."""
        return request_id(b"dataset", name.encode(), self._digest.digest())

    def close(self) -> None:
        """Removes the file."""
        with self._lock:
            self._file.close()


def request_id(*parts: bytes) -> str:
    """A UUID that stands for these parts."""
    digest = hashlib.sha256()
    for part in parts:
        # With its length, so that no two lists of parts are one sequence of bytes.
        digest.update(_LENGTH.pack(len(part)) + part)
    return str(uuid.UUID(bytes=digest.digest()[:16], version=5))


def collect(sources: Sequence[tuple[str | None, Rows]], columns: Mapping[str, str], labels: Sequence[str] | None) -> Spool:
    """The rows of these sources, each with the split that they belong to (``None``: they say so themselves). `labels` are
    those of a closed set.

    Raises:
        DistilleryError: ``INVALID_ARGUMENT``: the mistakes of the first source that has any.
    """
    places = _places(labels)
    spool = Spool()
    try:
        for split, rows in sources:
            for row in examples(rows, split, columns):
                _name_label(row, places)
                spool.add(row)
    except BaseException:
        spool.close()
        raise
    return spool


def divided(spool: Spool, holdout: Holdout, is_closed: bool) -> Spool:
    """The same rows, some of the train rows held out.

    Raises:
        DistilleryError: ``INVALID_ARGUMENT``: rows already say that they are held out.
    """
    for row in spool.rows():
        if holdout.holds_out(row.split):
            split = "test" if row.split == types_pb2.SPLIT_TEST else "validation"
            raise refused(f"data.{split}_share", f"contradicts the rows, some of which are `{split}` rows: remove it")
    holdout.divide((row for row in spool.rows() if row.split == types_pb2.SPLIT_TRAIN), is_closed)
    result = Spool()
    for row in spool.rows():
        if row.split == types_pb2.SPLIT_TRAIN:
            row.split = holdout.split_of(row)
        result.add(row)
    return result


def _places(labels: Sequence[str] | None) -> Sequence[str] | None:
    """The labels that integers may stand for; ``None`` where one of them is an integer itself."""
    return None if labels is None or any(_integer(label) is not None for label in labels) else labels


def _integer(text: str) -> int | None:
    found = _INTEGER.fullmatch(text.strip().removesuffix(".0"))
    return None if found is None else int(found[0])


def _name_label(row: types_pb2.Example, places: Sequence[str] | None) -> None:
    """An integer label of a closed set is the label in that place, as data sets have them; below 0, there is none."""
    if places is None or not row.HasField("label"):
        return
    place = _integer(row.label)
    if place is not None and place < 0:
        row.ClearField("label")
    elif place is not None and place < len(places):
        row.label = places[place]


def chunks(dataset_id: str, start: int, contents: Iterable[bytes]) -> Iterator[datasets_pb2.UploadRowsRequest]:
    """Messages of at most `CHUNK_ROWS_MAX` rows and `CHUNK_BYTES_MAX` bytes; a row that has more goes alone."""
    chunk = datasets_pb2.UploadRowsRequest(dataset_id=dataset_id, offset=start)
    filled = 0
    for row, content in enumerate(contents, start=start):
        if chunk.examples and (filled + len(content) > CHUNK_BYTES_MAX or len(chunk.examples) == CHUNK_ROWS_MAX):
            yield chunk
            chunk = datasets_pb2.UploadRowsRequest(dataset_id=dataset_id, offset=row)
            filled = 0
        chunk.examples.append(types_pb2.Example.FromString(content))
        filled += len(content)
    if chunk.examples:
        yield chunk


def upload(line: Line, stub: DatasetsServiceStub, name: str, spool: Spool) -> datasets_pb2.Dataset:
    """Stores rows, once: rows that the server has under this name are not sent again. An upload that was interrupted, here
    or in an earlier call, goes on where the server is."""
    if spool.count == 0:
        raise refused("train", "has no rows")
    create = datasets_pb2.CreateDatasetRequest(request_id=spool.request_id(name), name=name)
    patience = line.patience()
    stored = 0
    while True:
        dataset = line.call(lambda: stub.CreateDataset(create, timeout=line.timeout, metadata=line.metadata)).dataset
        if dataset.state == datasets_pb2.DATASET_STATE_COMMITTED:
            return dataset
        if dataset.rows > stored:
            patience.restored()
        stored = dataset.rows
        # Rows that were read from the file and belong to a later stream stay in this iterator.
        requests = chunks(dataset.id, stored, spool.contents(stored))
        try:
            while stored < spool.count:
                sent = itertools.islice(requests, _STREAM_CHUNKS)
                stored = stub.UploadRows(sent, timeout=line.timeout, metadata=line.metadata).rows
            break
        except grpc.RpcError as error:
            failed = of_call(error)
        patience.wait(failed)
    commit = datasets_pb2.CommitDatasetRequest(dataset_id=dataset.id)
    return line.call(lambda: stub.CommitDataset(commit, timeout=line.timeout, metadata=line.metadata)).dataset
