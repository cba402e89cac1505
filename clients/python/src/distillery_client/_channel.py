"""The line to the services: addresses, TLS, the token, and calls that are repeated where that is safe."""

from __future__ import annotations

import ipaddress
import os
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar
from urllib.parse import urlsplit

import grpc

from distillery_client._errors import DistilleryError, of_call, opened, refused
from distillery_client._proto import wire_pb2

T = TypeVar("T")
Metadata = tuple[tuple[str, str], ...]
Path = str | os.PathLike[str]

SERVER_ENV = "DISTILLERY_SERVER"
TOKEN_ENV = "DISTILLERY_TOKEN"
TRACEPARENT_ENV = "TRACEPARENT"
# Of the authorities, this client's certificate, and its key: as the command line's configuration names them.
_FILE_ENVS = ("DISTILLERY_CLIENT_CA", "DISTILLERY_CLIENT_CERTIFICATE", "DISTILLERY_CLIENT_KEY")

# Which service a server must have, and whose it is.
JOBS = ("distillery.v1.DistillationsService", "a harvester")
ANSWERS = ("distillery.v1.InferenceService", "an inference service")

# The limit of the services.
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
# Seconds in which a server has to tell its health.
HEALTH_WITHIN = 5.0
_DELAY = 0.2
_DELAY_MAX = 5.0
# A hint is followed up to here: a server that asks for more is repeated to the caller.
_HINT_MAX = 30.0
_SERVING = (1, 2)
# Seconds for which a server is looked for that has not answered yet: it starts, or its address is wrong.
_FIRST_SECONDS = 5.0
# Causes that time does not mend.
_LASTING = ("larger than max", "CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER")


class Patience:
    """Repeats of one call: for how long they may go on, and how long the next one waits."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._failures = 0
        self._began: float | None = None

    def delay(self, error: DistilleryError) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            DistilleryError: `error` itself, where another attempt would not help or comes too late.
        """
        if not is_passing(error):
            raise error
        now = time.monotonic()
        if self._began is None:
            self._began = now
        seconds = self._line.patience_seconds
        if not self._line.has_answered and error.code == "UNAVAILABLE":
            seconds = min(seconds, _FIRST_SECONDS)
        self._failures += 1
        if error.retry_after is not None:
            delay = error.retry_after
        else:
            delay = min(_DELAY * self._failures, _DELAY_MAX)
        # Callers that were refused together do not come back together.
        delay *= random.uniform(1.0, 1.2)
        if delay > _HINT_MAX * 1.2 or now + delay > self._began + seconds:
            raise error
        return delay

    def wait(self, error: DistilleryError) -> None:
        """Wait before the next attempt; raises as `delay`."""
        time.sleep(self.delay(error))

    def restored(self) -> None:
        """The server answered."""
        self._line.has_answered = True
        self._failures = 0
        self._began = None


def is_passing(error: DistilleryError) -> bool:
    """Whether the same call may succeed later, and was not carried out."""
    return error.code in ("UNAVAILABLE", "RESOURCE_EXHAUSTED") and not any(words in error.message for words in _LASTING)


class Line:
    """Channels to one or more servers, made when they are first used."""

    def __init__(
        self,
        server: str | None,
        token: str | None,
        ca: Path | None,
        certificate: Path | None,
        key: Path | None,
        plaintext: bool,
        timeout: float,
        patience: float,
    ) -> None:
        if not timeout > 0:
            raise refused("timeout", "must be above 0 seconds")
        if not patience >= 0:
            raise refused("patience", "must be 0 seconds or more")
        self.timeout = timeout
        self.patience_seconds = patience
        self.has_answered = False
        self._is_closed = False
        server = os.environ.get(SERVER_ENV, "") if server is None else server
        token = os.environ.get(TOKEN_ENV, "") if token is None else token
        self.urls = [url.strip() for url in server.split(",") if url.strip()]
        if not self.urls:
            raise refused("server", f"names no server: pass one, such as https://host:7070, or set {SERVER_ENV}")
        self.metadata = _metadata(token)
        files = zip((ca, certificate, key), _FILE_ENVS)
        self._files = [os.environ.get(name) or None if path is None else path for path, name in files]
        # Checked at once: a mistake in a URL is not one of the first call.
        addresses = [_address(url) for url in self.urls]
        for url, (host, _, is_secure) in zip(self.urls, addresses):
            if token and not is_secure and not _is_loopback(host) and not plaintext:
                words = f"{url}: would send the token in plain text: write https://, or pass plaintext=True"
                raise refused("server", words)
        self._channels = [self._channel(*address) for address in addresses]
        self._found: dict[str, grpc.Channel] = {}
        self._lock = threading.Lock()

    def _channel(self, host: str, port: int, is_secure: bool) -> grpc.Channel:
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        options = [
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
            # A connection that died is noticed, also while a stream waits for an event.
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 5_000),
            ("grpc.primary_user_agent", "distillery-python/0.1.0"),
        ]
        if not is_secure:
            return grpc.insecure_channel(target, options)
        ca, certificate, key = (_read(path) for path in self._files)
        if (certificate is None) != (key is None):
            raise refused("certificate", "goes together with `key`: pass both, or neither")
        roots = _system_roots() if ca is None else ca
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(roots, key, certificate), options)

    def to(self, service: tuple[str, str]) -> grpc.Channel:
        """The channel to the first server that has a service. With one server it is that one."""
        self.check_open()
        name, role = service
        with self._lock:
            if name in self._found:
                return self._found[name]
            if len(self._channels) == 1:
                return self._found.setdefault(name, self._channels[0])
            unreached: DistilleryError | None = None
            for channel in self._channels:
                try:
                    if self._has(channel, name):
                        return self._found.setdefault(name, channel)
                except DistilleryError as error:
                    unreached = unreached or error
            if unreached is not None:
                raise unreached
            words = (
                f"{', '.join(self.urls)}: none of them is {role}, which this call needs: name it too, with a comma between"
            )
            raise refused("server", words)

    def _has(self, channel: grpc.Channel, service: str) -> bool:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=wire_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=wire_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = check(wire_pb2.HealthCheckRequest(service=service), timeout=HEALTH_WITHIN, metadata=self.metadata)
        except grpc.RpcError as error:
            failed = of_call(error)
            if failed.code == "NOT_FOUND":
                return False
            # A server that answers, and does not tell its health, is called all the same.
            if failed.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                raise failed from None
            return True
        return answer.status in _SERVING

    def check_open(self) -> None:
        """Raises where the client is closed, as a call does that was being made then."""
        if self._is_closed:
            raise DistilleryError("CANCELLED", "the client is closed")

    def patience(self) -> Patience:
        """A fresh patience for one call."""
        return Patience(self)

    def call(self, attempt: Callable[[], T]) -> T:
        """What `attempt` returns; it is repeated while the server cannot be reached or has too much to do.

        Raises:
            DistilleryError: The last failure.
        """
        patience = self.patience()
        while True:
            self.check_open()
            try:
                answer = attempt()
            except grpc.RpcError as error:
                failed = of_call(error)
            else:
                self.has_answered = True
                return answer
            patience.wait(failed)

    def pieces(self, attempt: Callable[[], Iterator[T]]) -> Iterator[T]:
        """What the stream of `attempt` holds; it is repeated as in `call` until its first message came.

        Raises:
            DistilleryError: The last failure.
        """
        patience = self.patience()
        while True:
            has_begun = False
            self.check_open()
            stream = attempt()
            try:
                for message in stream:
                    has_begun = self.has_answered = True
                    yield message
                return
            except grpc.RpcError as error:
                failed = of_call(error)
            finally:
                cancel(stream)
            if has_begun:
                raise failed
            patience.wait(failed)

    def close(self) -> None:
        """Ends every connection; calls that are being made fail with ``CANCELLED``."""
        self._is_closed = True
        for channel in self._channels:
            channel.close()


def cancel(stream: object) -> None:
    """Tells the server that nobody reads a stream any more; one that ended is not changed."""
    if isinstance(stream, grpc.RpcContext):
        stream.cancel()


def _metadata(token: str) -> Metadata:
    metadata: list[tuple[str, str]] = []
    if token:
        if not token.isascii() or not token.isprintable():
            raise refused("token", "holds what no header can: it must be printable ASCII")
        metadata.append(("authorization", f"Bearer {token}"))
    # The trace of the script that calls goes on in the services, as with the command line.
    traceparent = os.environ.get(TRACEPARENT_ENV, "")
    if traceparent and traceparent.isascii() and traceparent.isprintable():
        metadata.append(("traceparent", traceparent))
    return tuple(metadata)


def _address(url: str) -> tuple[str, int, bool]:
    """Host, port, and whether there is TLS. ``host:port`` is plain text on this machine, and TLS elsewhere."""
    wrong = refused("server", f"`{url}` is not a URL such as https://host:7070")
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise wrong from None
    if not host or parts.scheme not in ("", "http", "https") or parts.username is not None:
        raise wrong
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        words = f"`{url}` has a path: services are called by host and port alone, such as https://host:7070"
        raise refused("server", words)
    is_secure = parts.scheme == "https" or (not parts.scheme and not _is_loopback(host))
    return host, port or (443 if is_secure else 80), is_secure


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise opened(path, error) from None


def _system_roots() -> bytes | None:
    """The authorities that the operating system trusts; ``None`` (gRPC's own) where Python knows no file of them."""
    file = ssl.get_default_verify_paths().cafile
    return _read(file) if file else None
