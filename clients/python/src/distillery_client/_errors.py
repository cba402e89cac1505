"""The one exception of this package, and how a gRPC status becomes it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import grpc
from google.protobuf.message import DecodeError

from distillery_client._proto import wire_pb2

_DETAILS = "grpc-status-details-bin"
_REQUEST_ID = "x-request-id"
# What the words of gRPC mean, and which setting changes it.
_MEANINGS = (
    (
        "CERTIFICATE_VERIFY_FAILED",
        "the server's certificate is not trusted here, or is for another name than that in the URL: pass `ca`",
    ),
    ("WRONG_VERSION_NUMBER", "the server does not speak TLS there: write http://"),
    ("Connection refused", "is `distillery serve` running there?"),
    (
        "Socket closed",
        "was the server stopped? If it has TLS, write https://; if it wants a client's certificate, pass `certificate`",
    ),
)
# How many mistakes of rows and specifications are collected before reading stops.
VIOLATIONS_MAX = 20
# How many of them a message names; the others are in `violations`.
_SHOWN_MAX = 8


@dataclass(frozen=True)
class Violation:
    """One mistake in what the caller gave."""

    field: str
    """The field, such as ``training.alpha``, ``train[12].label`` or ``rows.jsonl:13: label``."""
    message: str
    """What is wrong with it, and what to write."""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class DistilleryError(Exception):
    """A call that failed, or an argument that cannot be sent.

    Attributes:
        code: The name of a gRPC status code, such as ``INVALID_ARGUMENT``, ``NOT_FOUND``, ``FAILED_PRECONDITION``,
            ``UNAUTHENTICATED``, ``UNAVAILABLE`` or ``DEADLINE_EXCEEDED``. What this client refuses itself is
            ``INVALID_ARGUMENT``, and ``FAILED_PRECONDITION`` where it depends on the job.
        message: What happened, and what to do.
        violations: Every mistake by its field; empty where the server names none.
        retry_after: Seconds after which the server says to call again; ``None`` where it does not say.
        request_id: The server's name of the call, for its log; ``None`` where it gave none.
        row: In answers to several rows, the place of the row that was refused, from 0; ``None`` otherwise.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        violations: Sequence[Violation] = (),
        retry_after: float | None = None,
        request_id: str | None = None,
        row: int | None = None,
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.violations = tuple(violations)
        self.retry_after = retry_after
        self.request_id = request_id
        self.row = row

    def __str__(self) -> str:
        row = "" if self.row is None else f"row {self.row}: "
        request = "" if self.request_id is None else f" (request {self.request_id})"
        return f"{self.code}: {row}{self.message}{request}"


def invalid(violations: Sequence[Violation]) -> DistilleryError:
    """The error of arguments with these mistakes."""
    words = [str(violation) for violation in violations[:_SHOWN_MAX]]
    if len(violations) > _SHOWN_MAX:
        words.append(f"and {len(violations) - _SHOWN_MAX} more")
    return DistilleryError("INVALID_ARGUMENT", "; ".join(words), violations=violations)


def refused(field: str, message: str) -> DistilleryError:
    """The error of one argument."""
    return invalid([Violation(field, message)])


def opened(path: str | os.PathLike[str], error: OSError) -> DistilleryError:
    """The error of a file that cannot be read."""
    return refused(os.fspath(path), f"cannot be read: {error.strerror or error}")


def suggestion(name: str, known: Sequence[str]) -> str:
    """Which of the known names was meant, as the end of a message."""
    near = get_close_matches(name, known, n=1)
    return f": did you mean `{near[0]}`?" if near else f": the known ones are {', '.join(known)}"


def of_call(error: grpc.RpcError) -> DistilleryError:
    """What a failed call of gRPC says."""
    if not isinstance(error, grpc.Call):
        return DistilleryError("UNKNOWN", str(error))
    code = error.code()
    violations: list[Violation] = []
    retry_after: float | None = None
    request_id: str | None = None
    metadata = [*(error.initial_metadata() or ()), *(error.trailing_metadata() or ())]
    for key, value in metadata:
        if key == _DETAILS and isinstance(value, bytes):
            violations, retry_after = _details(value)
        elif key == _REQUEST_ID and isinstance(value, str):
            request_id = value
    # Elsewhere it says nothing that the message does not.
    request_id = request_id if code is grpc.StatusCode.INTERNAL else None
    message = _explained(code, error.details() or "")
    return DistilleryError(code.name, message, violations=violations, retry_after=retry_after, request_id=request_id)


def _details(value: bytes) -> tuple[list[Violation], float | None]:
    """The field violations and the retry hint in the details of a status; details that cannot be read say nothing."""
    violations: list[Violation] = []
    retry_after: float | None = None
    try:
        for detail in wire_pb2.Status.FromString(value).details:
            if detail.type_url.endswith("/google.rpc.BadRequest"):
                found = wire_pb2.BadRequest.FromString(detail.value).field_violations
                violations += [Violation(one.field, one.description) for one in found]
            elif detail.type_url.endswith("/google.rpc.RetryInfo"):
                delay = wire_pb2.RetryInfo.FromString(detail.value).retry_delay
                retry_after = max(0.0, delay.seconds + delay.nanos / 1e9)
    except DecodeError:
        pass
    return violations, retry_after


def _explained(code: grpc.StatusCode, details: str) -> str:
    """The words of a status, with the setting that changes it where that is known."""
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return f"{details}: pass `token`, or set DISTILLERY_TOKEN"
    if code is grpc.StatusCode.UNIMPLEMENTED and not details:
        return "this server has no such service: where harvester and inference run apart, `server` names both"
    for cause, meaning in _MEANINGS:
        if code is grpc.StatusCode.UNAVAILABLE and cause in details:
            return f"{details.removesuffix(': OK')}: {meaning}"
    return details or code.name
