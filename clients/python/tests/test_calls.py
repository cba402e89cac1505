"""Addresses, credentials, errors, repeats and pages."""

import time
from pathlib import Path

import grpc
import pytest
from fake import JOB, TOKEN, Fake

from distillery_client import Client, DistilleryError, Violation
from distillery_client._channel import _address


def test_a_call_says_who_calls_and_has_a_deadline(server: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    monkeypatch.setenv("TRACEPARENT", trace)
    with server.client(timeout=7.0) as client:
        assert client.predict("m", "text").label == "text"
        assert TOKEN not in repr(client)
    sent = dict(server.inference.metadata)
    assert sent["authorization"] == f"Bearer {TOKEN}"
    assert sent["traceparent"] == trace
    assert 0 < server.inference.seconds_left[0] <= 7.0


def test_settings_come_from_the_environment(server: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DistilleryError, match="names no server"):
        Client()
    monkeypatch.setenv("DISTILLERY_SERVER", server.url)
    monkeypatch.setenv("DISTILLERY_TOKEN", "another")
    with Client() as client:
        client.predict("m", "text")
    assert dict(server.inference.metadata)["authorization"] == "Bearer another"


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("localhost:7070", ("localhost", 7070, False)),
        ("127.0.0.1:7070", ("127.0.0.1", 7070, False)),
        ("[::1]:7070", ("::1", 7070, False)),
        ("host:7070", ("host", 7070, True)),
        ("http://host:7070", ("host", 7070, False)),
        ("https://host", ("host", 443, True)),
        ("https://host/", ("host", 443, True)),
    ],
)
def test_a_url_is_read_as_people_write_it(url: str, wanted: tuple[str, int, bool]) -> None:
    assert _address(url) == wanted


@pytest.mark.parametrize("url", ["ftp://host", "https://host/api", "https://host:port", "https://", "https://user@host"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(DistilleryError, match="is not a URL|has a path") as caught:
        Client(url)
    assert (caught.value.code, caught.value.violations[0].field) == ("INVALID_ARGUMENT", "server")


def test_a_token_leaves_this_machine_under_tls_only() -> None:
    with pytest.raises(DistilleryError, match="would send the token in plain text"):
        Client("http://host:7070", TOKEN)
    Client("http://host:7070", TOKEN, plaintext=True).close()
    Client("http://127.0.0.1:7070", TOKEN).close()
    with pytest.raises(DistilleryError, match="no header can"):
        Client("https://host:7070", "two\nlines")


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DistilleryError, match="none.pem: cannot be read"):
        Client("https://host:7070", ca=tmp_path / "none.pem")
    monkeypatch.setenv("DISTILLERY_CLIENT_CA", str(tmp_path / "another.pem"))
    with pytest.raises(DistilleryError, match="another.pem: cannot be read"):
        Client("https://host:7070")
    monkeypatch.delenv("DISTILLERY_CLIENT_CA")
    (tmp_path / "c.pem").write_text("")
    with pytest.raises(DistilleryError, match="goes together with `key`"):
        Client("https://host:7070", certificate=tmp_path / "c.pem")


def test_each_call_goes_to_the_server_that_has_its_service(server: Fake) -> None:
    # Without the health service a server is taken at its word: the first one that answers.
    with Client(f"http://127.0.0.1:1,{server.url}", TOKEN, patience=0) as client:
        assert client.models()[0].name == "student"
    with Client("http://127.0.0.1:1,http://127.0.0.1:2", TOKEN, patience=0) as client:
        with pytest.raises(DistilleryError) as caught:
            client.models()
    assert caught.value.code == "UNAVAILABLE"


def test_an_unavailable_server_is_called_again_with_the_same_request(server: Fake) -> None:
    server.distillations.faults = [(grpc.StatusCode.UNAVAILABLE, "starting", [], None)] * 2
    with server.client() as client:
        job = client.submit({"name": "job", "task": "equation"}, train=[{"input": "1 + 1?", "label": "2"}])
    assert job.state == "queued"
    ids = [request.request_id for request in server.distillations.submitted]
    assert len(ids) == 3 and len(set(ids)) == 1, ids


def test_the_hint_of_a_busy_server_is_followed(server: Fake) -> None:
    server.distillations.faults = [(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls", [], 0.7)]
    with server.client() as client:
        began = time.monotonic()
        client.cancel(JOB)
        assert time.monotonic() - began >= 0.7
    # It hints at a time that is over the caller's patience: that is the caller's business.
    server.distillations.faults = [(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls", [], 5.0)]
    with server.client(patience=2.0) as client, pytest.raises(DistilleryError) as caught:
        client.cancel(JOB)
    assert (caught.value.code, caught.value.retry_after) == ("RESOURCE_EXHAUSTED", 5.0)


def test_repeats_end_with_the_callers_patience(server: Fake) -> None:
    server.distillations.faults = [(grpc.StatusCode.UNAVAILABLE, "starting", [], None)] * 50
    with server.client(patience=1.0) as client:
        began = time.monotonic()
        with pytest.raises(DistilleryError) as caught:
            client.cancel(JOB)
        assert time.monotonic() - began < 2.0
    assert caught.value.code == "UNAVAILABLE"
    assert 2 <= len(server.distillations.cancelled) <= 5


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "FAILED_PRECONDITION", "INTERNAL", "ABORTED", "DEADLINE_EXCEEDED"])
def test_what_another_call_does_not_mend_is_not_called_again(server: Fake, code: str) -> None:
    server.distillations.faults = [(grpc.StatusCode[code], "no", [], None)]
    with server.client() as client, pytest.raises(DistilleryError) as caught:
        client.cancel(JOB, "a reason")
    assert caught.value.code == code
    assert [(one.distillation_id, one.reason) for one in server.distillations.cancelled] == [(JOB, "a reason")]


def test_a_server_that_never_answered_is_not_waited_for() -> None:
    with Client("http://127.0.0.1:1") as client:
        began = time.monotonic()
        with pytest.raises(DistilleryError, match="is `distillery serve` running there") as caught:
            client.list()
        assert time.monotonic() - began < 10
    assert caught.value.code == "UNAVAILABLE"


def test_tls_that_cannot_be_spoken_is_said_at_once(server: Fake) -> None:
    with Client(server.url.replace("http:", "https:")) as client:
        began = time.monotonic()
        with pytest.raises(DistilleryError, match="does not speak TLS there: write http://"):
            client.list()
        assert time.monotonic() - began < 3
    server.distillations.faults = [(grpc.StatusCode.UNIMPLEMENTED, "", [], None)]
    with server.client() as client, pytest.raises(DistilleryError, match="`server` names both"):
        client.list()


def test_every_violation_of_a_status_is_read(server: Fake) -> None:
    found = [Violation("training.alpha", "is 2: it must lie between 0 and 1"), Violation("name", "is empty")]
    server.distillations.faults = [(grpc.StatusCode.INVALID_ARGUMENT, "two mistakes", found, None)]
    with server.client() as client, pytest.raises(DistilleryError) as caught:
        client.submit({"name": "job", "task": "equation"}, train=[{"input": "1 + 1?"}])
    assert caught.value.violations == tuple(found)
    assert str(caught.value) == "INVALID_ARGUMENT: two mistakes"


def test_a_missing_token_says_what_to_set(server: Fake) -> None:
    server.distillations.faults = [(grpc.StatusCode.UNAUTHENTICATED, "no token", [], None)]
    with server.client() as client, pytest.raises(DistilleryError, match="set DISTILLERY_TOKEN"):
        client.list()


def test_lists_are_read_page_by_page(server: Fake) -> None:
    server.distillations.jobs = 1_200
    with server.client() as client:
        assert [job.id for job in client.list(limit=1_100)] == [str(place) for place in range(1_100)]
        assert len(client.list(limit=5_000)) == 1_200
        assert client.list(limit=0) == []
        server.distillations.jobs = 0
        assert client.list() == []
        with pytest.raises(DistilleryError, match="did you mean `training`"):
            client.list(states=["trainign"])
        with pytest.raises(DistilleryError, match="no job `absent`") as caught:
            client.get("absent")
    assert caught.value.code == "NOT_FOUND"


def test_a_ledger_is_read_page_by_page(server: Fake) -> None:
    server.rationales.count = 1_201
    with server.client() as client:
        ledger = client.ledger(JOB, verdict="rejected", reasons=["disagrees", "no_answer"])
        places = [(entry.row, entry.sample) for entry in ledger]
        assert places == [(place // 2, place % 2) for place in range(1_201)]
        assert len(list(client.ledger(JOB, limit=7))) == 7
        with pytest.raises(DistilleryError, match="did you mean `accepted`"):
            client.ledger(JOB, verdict="accept")
    asked = server.rationales.asked[0]
    assert (asked.verdict, list(asked.reasons), asked.page.page_size) == (3, [6, 1], 500)


def test_a_ledger_is_a_table(server: Fake) -> None:
    pytest.importorskip("pandas")
    server.rationales.count = 3
    with server.client() as client:
        ledger = client.ledger(JOB)
        table = ledger.to_pandas()
        assert (len(table), list(table.columns[:2]), set(table["verdict"])) == (3, ["row", "sample"], {"rejected"})
        server.rationales.count = 0
        assert "completion" in ledger.to_pandas().columns


def test_models_are_listed(server: Fake) -> None:
    with server.client() as client:
        (model,) = client.models()
    assert (str(model), model.test) == ("student@3", None)
