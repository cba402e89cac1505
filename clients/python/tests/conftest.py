"""What several tests use."""

from collections.abc import Iterator

import pytest
from fake import Fake


@pytest.fixture
def server() -> Iterator[Fake]:
    """A server in this process."""
    with Fake() as fake:
        yield fake


@pytest.fixture(autouse=True)
def no_settings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the caller's shell exports is no part of these tests, but for those with a running server."""
    if request.node.get_closest_marker("live") is None:
        for name in ("SERVER", "TOKEN", "CLIENT_CA", "CLIENT_CERTIFICATE", "CLIENT_KEY"):
            monkeypatch.delenv(f"DISTILLERY_{name}", raising=False)
        monkeypatch.delenv("TRACEPARENT", raising=False)
