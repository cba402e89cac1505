"""Jobs: submitted with their rows, watched, cancelled."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from fake import JOB, Distillations, Fake

from distillery_client import DistilleryError, Row
from distillery_client._proto import distillations_pb2, spec_pb2, types_pb2

SPEC: dict[str, object] = {"name": "job", "task": "equation"}


def rows(count: int, length: int = 0) -> Iterator[dict[str, str]]:
    for place in range(count):
        yield {"input": f"row {place}" + " long" * (length // 5), "label": str(place)}


def test_rows_are_sent_in_chunks_of_few_rows_and_few_bytes(server: Fake) -> None:
    with server.client() as client:
        client.submit(SPEC, train=rows(1_200), test=rows(3))
    offsets = [(chunk.offset, len(chunk.examples)) for chunk in server.datasets.chunks]
    assert offsets == [(0, 500), (500, 500), (1_000, 203)]
    stored = server.datasets.rows
    assert [row.input for row in stored] == [row["input"] for row in [*rows(1_200), *rows(3)]]
    assert [row.split for row in stored[1_199:1_201]] == [types_pb2.SPLIT_TRAIN, types_pb2.SPLIT_TEST]


def test_chunks_of_long_rows_have_fewer_of_them(server: Fake) -> None:
    with server.client() as client:
        client.submit(SPEC, train=rows(600, 40_000))
    sizes = [len(chunk.examples) for chunk in server.datasets.chunks]
    assert sum(sizes) == 600 and max(sizes) == 52, sizes


def test_an_upload_goes_on_where_the_server_is(server: Fake) -> None:
    server.datasets.breaks = 2
    with server.client() as client:
        client.submit(SPEC, train=rows(2_600))
    assert [row.input for row in server.datasets.rows] == [f"row {place}" for place in range(2_600)]
    assert len(server.datasets.ids) == 1, "the same rows are the same upload"
    assert server.datasets.chunks[1].offset == 500


def test_rows_that_the_server_has_are_not_sent(server: Fake) -> None:
    with server.client() as client:
        client.submit(SPEC, train=rows(3))
        client.submit(SPEC, train=[*rows(3)])
        assert len(server.datasets.chunks) == 1
        client.submit(SPEC, train=rows(4))
    assert len(server.datasets.ids) == 2
    first, second, _ = server.distillations.submitted
    assert first.request_id == second.request_id


def test_a_job_is_made_anew_where_that_is_asked_for(server: Fake) -> None:
    with server.client() as client:
        client.submit(SPEC, train=rows(3))
        client.submit(SPEC, train=rows(3), again=True)
        server.distillations.state = distillations_pb2.DISTILLATION_STATE_CANCELLED
        with pytest.raises(DistilleryError, match="again=True makes another job") as caught:
            client.submit(SPEC, train=rows(3))
        assert caught.value.code == "FAILED_PRECONDITION"
        server.distillations.state = distillations_pb2.DISTILLATION_STATE_PAUSED
        assert client.submit(SPEC, train=rows(3)).state == "harvesting"
    assert server.distillations.resumed == 1
    first, second = server.distillations.submitted[:2]
    assert first.request_id != second.request_id


def test_nothing_is_sent_where_a_row_has_a_mistake(server: Fake) -> None:
    bad: list[Row] = [*rows(5), {"input": 3}, {"lable": "x", "input": "y"}]
    with server.client() as client, pytest.raises(DistilleryError) as caught:
        client.submit(SPEC, train=bad)
    fields = [str(violation) for violation in caught.value.violations]
    assert fields[0] == "train[5].input: is a number: it must be text"
    assert fields[1].startswith("train[6].lable: is not a field of a row: did you mean `label`?")
    assert (server.datasets.ids, server.datasets.chunks) == ({}, [])
    with server.client() as client, pytest.raises(DistilleryError, match="train: has no rows"):
        client.submit(SPEC, train=[])


def test_where_no_train_row_has_a_label_the_student_learns_the_teachers(server: Fake) -> None:
    def learnt(spec: dict[str, object], train: list[dict[str, str]]) -> int:
        with server.client() as client:
            client.submit(spec, train=train, test=rows(2))
        return server.distillations.submitted[-1].spec.judging.label

    unlabelled = [{"input": "a"}, {"input": "b"}]
    assert learnt(SPEC, unlabelled) == spec_pb2.LABEL_SOURCE_TEACHER
    assert learnt(SPEC, [*unlabelled, *rows(1)]) == spec_pb2.LABEL_SOURCE_UNSPECIFIED
    assert learnt(SPEC | {"judging": {"label": "gold"}}, unlabelled) == spec_pb2.LABEL_SOURCE_GOLD
    assert learnt(SPEC | {"teacher": {"profile": "none"}}, unlabelled) == spec_pb2.LABEL_SOURCE_UNSPECIFIED


def test_files_of_a_specification_are_read_beside_it(server: Fake, tmp_path: Path) -> None:
    (tmp_path / "spec.toml").write_text(
        'name = "job"\ntask = "nli"\n[data]\ntrain = "rows.csv"\ntest = "test.jsonl"\n'
        'columns = { premise = "a", hypothesis = "b", label = "class" }\n'
    )
    (tmp_path / "rows.csv").write_text('a;b;class;other\n"x; y";z;0;5\nq;r;-1;9\n')
    (tmp_path / "test.jsonl").write_text(json.dumps({"a": "p", "b": "h", "class": 2.0}) + "\n\n")
    with server.client() as client:
        client.submit(tmp_path / "spec.toml")
    first, second, test = server.datasets.rows
    # An integer stands for the label in its place of the closed set; below 0, there is none.
    assert (first.premise, first.hypothesis, first.label) == ("x; y", "z", "entailment")
    assert (second.premise, second.HasField("label")) == ("q", False)
    assert (test.premise, test.label, test.split) == ("p", "contradiction", types_pb2.SPLIT_TEST)


def test_a_job_is_watched_over_lost_connections(server: Fake) -> None:
    def event(sequence: int, step: int) -> distillations_pb2.WatchDistillationResponse:
        progress = distillations_pb2.TrainingProgress(step=step, steps=9)
        progress.metrics.add(step=step, name="loss", value=0.5)
        return distillations_pb2.WatchDistillationResponse(sequence=sequence, training_progress=progress)

    snapshot = distillations_pb2.WatchDistillationResponse(
        sequence=0, harvest_progress=distillations_pb2.HarvestProgress(calls=3, expected=8)
    )
    server.distillations.streams = [[event(4, 1), snapshot], [], [event(5, 2)]]
    with server.client() as client:
        events = list(client.watch(JOB, after=3))
    assert server.distillations.watched == [3, 4, 4]
    assert [event.sequence for event in events] == [4, 0, 5]
    assert str(events[0]) == "training: step 1 of 9, loss 0.5"
    assert events[1].harvest is not None and events[1].harvest.calls == 3


def test_watching_ends_with_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(self: object, request: object, context: object) -> Iterator[distillations_pb2.WatchDistillationResponse]:
        time.sleep(2)
        yield from ()

    monkeypatch.setattr(Distillations, "WatchDistillation", silent)
    # Methods are looked up when a server is made.
    with Fake() as fake, fake.client() as client:
        began = time.monotonic()
        with pytest.raises(DistilleryError, match="did not end within 0.5 seconds") as caught:
            list(client.watch(JOB, timeout=0.5))
        assert 0.5 <= time.monotonic() - began < 1.5
    assert caught.value.code == "DEADLINE_EXCEEDED"


def test_a_job_is_cancelled_once_though_the_answer_was_lost(server: Fake) -> None:
    server.distillations.faults = [(grpc.StatusCode.UNAVAILABLE, "the connection broke", [], None)]
    with server.client() as client:
        assert client.cancel(JOB, "wrong labels").state == "cancelled"
    assert [one.reason for one in server.distillations.cancelled] == ["wrong labels"] * 2
