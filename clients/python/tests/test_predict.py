"""Answers of a student: their order, their number in flight, refusals, streams."""

import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from fake import Fake, fail

from distillery_client import DistilleryError, Prediction


def labels(predictions: Iterator[Prediction]) -> list[str]:
    return [prediction.label for prediction in predictions]


def test_a_prediction_has_everything_that_the_service_says(server: Fake) -> None:
    with server.client() as client:
        prediction = client.predict("m@4", {"input": "text"}, route_below=-0.1)
        assert (prediction.label, prediction.probabilities, prediction.log_probability) == ("text", {"b": 0.75}, -0.5)
        assert (prediction.model, prediction.version, prediction.ask_teacher) == ("m", 4, True)
        assert (round(prediction.probability, 3), prediction.rationale) == (0.607, None)
        assert client.predict("m", "text").version == 7
        with pytest.raises(DistilleryError, match="`0` is not a version"):
            client.predict("m@0", "text")


def test_many_rows_are_answered_in_order(server: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow_when_even(text: str, context: grpc.ServicerContext) -> str:
        # Later rows overtake earlier ones at the server.
        time.sleep(0.02 if int(text) % 2 == 0 else 0.0)
        return text

    monkeypatch.setattr(server.inference, "answer", slow_when_even)
    rows = [str(place) for place in range(200)]
    with server.client() as client:
        assert labels(client.predict("m", rows, concurrency=16)) == rows
    assert server.inference.asked != rows


def test_rows_in_flight_are_bounded_and_inputs_are_read_as_answers_are_taken(
    server: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def counted(text: str, context: grpc.ServicerContext) -> str:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with lock:
            now -= 1
        return text

    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield str(read)

    monkeypatch.setattr(server.inference, "answer", counted)
    with server.client() as client:
        predictions = client.predict("m", endless(), concurrency=5)
        assert [next(predictions).label for _ in range(50)] == [str(place) for place in range(1, 51)]
        # Who leaves early cancels what is in flight.
        predictions.close()  # type: ignore[attr-defined]
    assert most == 5
    assert read <= 56
    with server.client() as client, pytest.raises(DistilleryError, match="between 1 and 256"):
        client.predict("m", ["text"], concurrency=0)


def test_a_busy_student_gets_fewer_rows_and_every_row_is_answered(server: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, now, refused = threading.Lock(), 0, 0

    def two_at_once(text: str, context: grpc.ServicerContext) -> str:
        nonlocal now, refused
        with lock:
            now += 1
            is_busy = now > 2
            refused += is_busy
        try:
            if is_busy:
                fail(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "99 tokens wait already", retry_after=0.03)
            time.sleep(0.002)
        finally:
            with lock:
                now -= 1
        return text

    monkeypatch.setattr(server.inference, "answer", two_at_once)
    rows = [str(place) for place in range(200)]
    with server.client() as client:
        assert labels(client.predict("m", rows, concurrency=16)) == rows
    # Where the number in flight stayed as it is, about twice as many would be refused.
    assert 0 < refused < 80


def test_a_row_that_is_refused_is_named_and_fails_alone(server: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_7(text: str, context: grpc.ServicerContext) -> str:
        if text == "7":
            fail(context, grpc.StatusCode.INVALID_ARGUMENT, "example: is too long")
        return text

    monkeypatch.setattr(server.inference, "answer", refuse_7)
    rows = [str(place) for place in range(12)]
    with server.client() as client:
        seen = []
        with pytest.raises(DistilleryError, match="row 7: example: is too long") as caught:
            for prediction in client.predict("m", rows):
                seen.append(prediction.label)
        assert (caught.value.row, seen) == (7, rows[:7])
        # What cannot be sent at all is refused in its place too.
        mixed: list[object] = [*rows, {"inptu": "x"}, "last"]
        answers = list(client.predict("m", mixed, return_errors=True))  # type: ignore[call-overload]
    errors = [(place, answer.row) for place, answer in enumerate(answers) if isinstance(answer, DistilleryError)]
    assert errors == [(7, 7), (12, 12)]
    assert (len(answers), answers[13].label) == (14, "last")
    assert "did you mean `input`" in answers[12].message


def test_what_concerns_the_call_is_raised_whatever_is_returned(server: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(text: str, context: grpc.ServicerContext) -> str:
        fail(context, grpc.StatusCode.NOT_FOUND, "there is no model `m` here")

    monkeypatch.setattr(server.inference, "answer", absent)
    with server.client() as client, pytest.raises(DistilleryError) as caught:
        list(client.predict("m", ["a", "b"], return_errors=True))
    assert (caught.value.code, caught.value.row) == ("NOT_FOUND", None)


def test_a_stream_is_begun_again_before_its_first_piece_only(server: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = {"explain": 1, "explained": 0}

    def breaks(text: str, context: grpc.ServicerContext) -> str:
        if failing[text]:
            failing[text] -= 1
            fail(context, grpc.StatusCode.UNAVAILABLE, "draining")
        return text

    monkeypatch.setattr(server.inference, "answer", breaks)
    with server.client() as client:
        assert list(client.explain("m", "text")) == ["be", "cause"]
        failing["explained"] = 1
        seen = []
        with pytest.raises(DistilleryError) as caught:
            for piece in client.explain("m", "text"):
                seen.append(piece)
    # What was seen would be seen twice.
    assert (seen, caught.value.code) == (["be", "cause"], "UNAVAILABLE")


def test_a_closed_client_says_so(server: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(text: str, context: grpc.ServicerContext) -> str:
        time.sleep(0.5 if int(text) else 0.0)
        return text

    monkeypatch.setattr(server.inference, "answer", slow)
    client = server.client()
    predictions = client.predict("m", (str(place) for place in range(9)), concurrency=4)
    assert next(predictions).label == "0"
    client.close()
    for call in (
        lambda: next(predictions),
        lambda: client.predict("m", "0"),
        lambda: list(client.explain("m", "0")),
        client.models,
    ):
        with pytest.raises(DistilleryError) as caught:
            call()
        assert caught.value.code == "CANCELLED"
