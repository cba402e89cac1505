"""Calls of a running server, which the caller's environment names: DISTILLERY_SERVER, DISTILLERY_TOKEN,
DISTILLERY_CLIENT_CA.

The token needs the role `submit` or more. No teacher is asked: the rationales come with the rows. What a job leaves at the
server are its records, a dataset and a model named `python-live`.
"""

import os
import uuid
from collections.abc import Iterator

import pytest

from distillery_client import Client, DistilleryError, Job

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not os.environ.get("DISTILLERY_SERVER"), reason="DISTILLERY_SERVER names no running server"),
]

TRAIN, TEST = 60, 12


def rows(first: int, count: int) -> Iterator[dict[str, str]]:
    for number in range(first, first + count):
        left, right = 2 + number % 7, 3 + number % 5
        rationale = f"Ann has {left} pens. She buys {right} more. {left} + {right}."
        label = f"( {left} + {right} )"
        yield {
            "input": f"Ann has {left} pens in box {number}, buys {right}. How many?",
            "label": label,
            "rationale": rationale,
        }


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Client() as client:
        yield client


@pytest.fixture(scope="module")
def spec() -> dict[str, object]:
    return {
        "name": "python-live",
        "task": "equation",
        "teacher": {"profile": "imported"},
        "student": {"size": "tiny", "vocabulary": 300},
        # A seed of its own makes it another job than an earlier run's.
        "training": {"steps": 4, "batch_examples": 8, "target_tokens_max": 24, "seed": uuid.uuid4().int % 2**31},
    }


@pytest.fixture(scope="module")
def job(client: Client, spec: dict[str, object]) -> Job:
    job = client.submit(spec, train=rows(0, TRAIN), test=rows(TRAIN, TEST))
    events = list(client.watch(job, timeout=300))
    states = [event.state for event in events if event.kind == "state_changed"]
    assert states == ["queued", "harvesting", "training", "evaluating", "succeeded"]
    sequences = [event.sequence for event in events if event.sequence]
    assert sequences == list(range(1, len(sequences) + 1))
    assert {event.kind for event in events} >= {"evaluated", "published", "training_progress"}
    return client.get(job)


def test_a_job_ends_with_a_ledger_and_a_model(client: Client, job: Job, spec: dict[str, object]) -> None:
    assert (job.state, job.has_ended, job.spec.student.vocabulary) == ("succeeded", True, 300)
    assert job.harvest is not None and job.harvest.verdicts["accepted"] == TRAIN
    entries = [entry for entry in client.ledger(job, verdict="accepted") if not entry.evaluates]
    assert [entry.row for entry in entries] == list(range(TRAIN))
    assert [entry.rationale for entry in entries] == [row["rationale"] for row in rows(0, TRAIN)]
    assert list(client.ledger(job, verdict="rejected")) == []
    # The same again is the same job, and the newest of its name.
    assert client.submit(spec, train=rows(0, TRAIN), test=rows(TRAIN, TEST)).id == job.id
    assert client.get("python-live").id == job.id
    assert client.list(states=["succeeded"], name="python-live", limit=1)[0].id == job.id
    model = client.model(job)
    assert (model.name, model.distillation_id) == ("python-live", job.id)
    assert model.test is not None and model.test.rows == TEST
    assert client.models(name="python-live", limit=1) == [model]
    assert client.model(str(model)) == model


def test_a_student_answers_alone_as_among_others(client: Client, job: Job) -> None:
    model = client.model(job)
    client.wait_until_served(model)
    texts = [row["input"] for row in rows(0, 200)]
    many = list(client.predict(model, texts, route_below=0.0))
    assert len(many) == 200 and {answer.version for answer in many} == {model.version}
    assert all(answer.ask_teacher and answer.probabilities == {} for answer in many)
    for place in (0, 77, 199):
        alone = client.predict(model, texts[place])
        assert (alone.label, alone.ask_teacher) == (many[place].label, False)
        assert alone.log_probability == pytest.approx(many[place].log_probability, abs=1e-3)
    explained = client.predict_and_explain(model, texts[0], tokens_max=8)
    assert explained.label == many[0].label
    assert explained.rationale == "".join(client.explain(model, {"input": texts[0]}, tokens_max=8))
    both = list(client.predict_and_explain(model, texts[:5], tokens_max=8))
    assert [answer.label for answer in both] == [answer.label for answer in many[:5]]
    text = "".join(client.generate(model, f"explain: {texts[0]}", tokens_max=8))
    assert text == explained.rationale


def test_a_row_that_cannot_be_answered_fails_alone(client: Client, job: Job) -> None:
    model = client.model(job)
    client.wait_until_served(model)
    answers = list(client.predict(model, ["a", " ", "b", {"input": "c" * 70_000}], return_errors=True))
    refused = {place: answer for place, answer in enumerate(answers) if isinstance(answer, DistilleryError)}
    assert {place: (error.code, error.row) for place, error in refused.items()} == {
        1: ("INVALID_ARGUMENT", 1),
        3: ("INVALID_ARGUMENT", 3),
    }
    assert refused[1].violations[0].field == "example.input"


def test_mistakes_are_named_by_the_server(client: Client, spec: dict[str, object]) -> None:
    wrong = spec | {"name": "../up", "training": {"alpha": 2.0, "steps": 0}}
    with pytest.raises(DistilleryError) as caught:
        client.submit(wrong, dataset=client._dataset("python-live"))
    assert caught.value.code == "INVALID_ARGUMENT"
    assert {violation.field for violation in caught.value.violations} == {"name", "training.alpha", "training.steps"}
    with pytest.raises(DistilleryError) as caught:
        client.submit(spec, train=[{"input": "a", "label": "1"}, {"input": " ", "label": "1"}])
    assert (caught.value.code, "input" in caught.value.violations[0].field) == ("INVALID_ARGUMENT", True)
    with pytest.raises(DistilleryError) as caught:
        client.get("00000000-0000-4000-8000-000000000000")
    assert caught.value.code == "NOT_FOUND"
    with pytest.raises(DistilleryError) as caught:
        client.predict("no-such-model", "text")
    assert caught.value.code == "NOT_FOUND"
    with pytest.raises(DistilleryError) as caught:
        client.wait_until_served("no-such-model", timeout=0.3)
    assert caught.value.code == "DEADLINE_EXCEEDED"


@pytest.mark.skipif(not os.environ.get("DISTILLERY_TOKEN"), reason="DISTILLERY_TOKEN: this server may want no token")
def test_who_has_no_token_is_refused() -> None:
    for token in ("", "wrong"):
        with Client(token=token) as stranger, pytest.raises(DistilleryError) as caught:
            stranger.list()
        assert caught.value.code == "UNAUTHENTICATED"


def test_a_job_is_cancelled(client: Client, spec: dict[str, object]) -> None:
    long = spec | {"name": "python-live-cancelled", "training": {"steps": 1_000_000, "patience": 0, "target_tokens_max": 24}}
    job = client.submit(long, train=rows(0, TRAIN), again=True)
    for event in client.watch(job, timeout=120):
        if event.state == "training":
            break
    assert client.cancel(job, "a test").state == "cancelled"
    assert client.cancel(job.name).reason == "a test"
    with pytest.raises(DistilleryError) as caught:
        client.resume(job)
    assert caught.value.code == "FAILED_PRECONDITION"
    assert [event.state for event in client.watch(job) if event.state][-1] == "cancelled"
