"""The client."""

from __future__ import annotations

import re
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeVar, overload

import grpc

from distillery_client._channel import ANSWERS, JOBS, Line, Metadata, Path, cancel, is_passing
from distillery_client._errors import DistilleryError, Violation, invalid, of_call, refused, suggestion
from distillery_client._holdout import Holdout
from distillery_client._proto import (
    datasets_pb2,
    distillations_pb2,
    inference_pb2,
    models_pb2,
    rationales_pb2,
    spec_pb2,
    types_pb2,
    wire_pb2,
)
from distillery_client._proto.datasets_pb2_grpc import DatasetsServiceStub
from distillery_client._proto.distillations_pb2_grpc import DistillationsServiceStub
from distillery_client._proto.inference_pb2_grpc import InferenceServiceStub
from distillery_client._proto.models_pb2_grpc import ModelsServiceStub
from distillery_client._proto.rationales_pb2_grpc import RationalesServiceStub
from distillery_client._records import REASONS, STATES, VERDICTS, Dataset, Entry, Event, Job, Model, Prediction
from distillery_client._rows import Row, Rows, example
from distillery_client._spec import Data, Spec
from distillery_client._spec import read as read_spec
from distillery_client._upload import collect, divided, request_id, upload

if TYPE_CHECKING:
    import pandas

Input = str | Row
"""A text, or a row by its fields (``input`` and ``choices``, or ``premise`` and ``hypothesis``)."""

# Inside the class this name is a method.
_List = list
_PAGE_ROWS = 500
# A stream that waits for events is opened again after so many seconds: every call has a deadline.
_WATCH_SECONDS = 600.0
_POLL_SECONDS = 0.2
# Most rows in flight: what the server works on at once, and reads its batches from.
_CONCURRENCY_MAX = 256
_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

_Response = TypeVar("_Response")
_Question = TypeVar("_Question", contravariant=True)


class Client:
    """Calls the services of Distillery.

    A client may be used by several threads. It is a context manager, which closes its connections.

    Args:
        server: The server's URL, such as ``https://host:7070``; where harvester and inference run apart, both with a comma
            between. Without a scheme it is plain text on this machine, and TLS elsewhere. Default: the variable
            ``DISTILLERY_SERVER``.
        token: The bearer token. Default: the variable ``DISTILLERY_TOKEN``; an empty text sends none.
        ca: A PEM file with the certificate authorities to trust. Default: the variable ``DISTILLERY_CLIENT_CA``, else those
            of the operating system.
        certificate: A PEM file with this client's certificate, where the server wants one. Goes together with `key`.
            Default: the variable ``DISTILLERY_CLIENT_CERTIFICATE``.
        key: A PEM file with its private key. Default: the variable ``DISTILLERY_CLIENT_KEY``.
        plaintext: Allow sending the token in plain text to another machine.
        timeout: Seconds after which one attempt of a call fails with ``DEADLINE_EXCEEDED``.
        patience: Seconds for which a call is repeated while the server cannot be reached or has too much to do
            (``UNAVAILABLE``, ``RESOURCE_EXHAUSTED``), as the server's hint says where it gives one. A server that never
            answered is given 5 seconds. 0 never repeats. Calls
            that create something have a request id, so that a repeated one creates it once.

    Raises:
        DistilleryError: ``INVALID_ARGUMENT``: a URL, a file or the token cannot be used. No connection is made yet.
    """

    def __init__(
        self,
        server: str | None = None,
        token: str | None = None,
        ca: Path | None = None,
        *,
        certificate: Path | None = None,
        key: Path | None = None,
        plaintext: bool = False,
        timeout: float = 60.0,
        patience: float = 120.0,
    ) -> None:
        self._line = Line(server, token, ca, certificate, key, plaintext, timeout, patience)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        # Without the token.
        return f"Client({', '.join(self._line.urls)!r})"

    def close(self) -> None:
        """Close the connections. Calls that are being made fail with ``CANCELLED``."""
        self._line.close()

    # What calls need.

    def _ask(self, method: Callable[..., _Response], request: object) -> _Response:
        """One call with its deadline, repeated where that helps."""
        line = self._line
        return line.call(lambda: method(request, timeout=line.timeout, metadata=line.metadata))

    def _distillations(self) -> DistillationsServiceStub:
        return DistillationsServiceStub(self._line.to(JOBS))

    def _datasets(self) -> DatasetsServiceStub:
        return DatasetsServiceStub(self._line.to(JOBS))

    def _inference(self) -> InferenceServiceStub:
        return InferenceServiceStub(self._line.to(ANSWERS))

    def _job_id(self, job: Job | str) -> str:
        if isinstance(job, Job):
            return job.id
        if _ID.fullmatch(job):
            return job
        newest = self.list(name=job, limit=1) if job else []
        if not newest:
            raise DistilleryError("NOT_FOUND", f"there is no job `{job}`: `list` returns the jobs")
        return newest[0].id

    # Jobs.

    def submit(
        self,
        spec: Path | Mapping[str, object],
        *,
        train: Rows | None = None,
        validation: Rows | None = None,
        test: Rows | None = None,
        rows: Rows | None = None,
        dataset: str | Dataset | None = None,
        again: bool = False,
    ) -> Job:
        """Submit a distillation.

        Rows are read once, into a temporary file: all mistakes are found before anything is sent. Rows that the server has
        are not sent again, and the same specification over the same rows is the same job, which resumes if it was paused or
        has failed.

        Args:
            spec: A specification: the path of a TOML file, or a mapping with the same keys (``name``, ``task``, ``teacher``,
                ``judging``, ``student``, ``training``; ``task`` may be the table of a task file).
            train: The rows that the student learns from: mappings, or the path of a file (``.jsonl``, ``.json``, ``.csv``,
                ``.tsv``).
            validation: Rows that select the checkpoint.
            test: Rows that are read once, at the end.
            rows: Rows that name their own ``split``.
            dataset: A dataset that the server has, by name or as returned, in place of rows. Without rows and dataset,
                ``[data]`` of the specification says where the rows are.
            again: Make another job where this one was submitted before; answers that were paid for are used again.

        Returns:
            The job, queued or further.

        Raises:
            DistilleryError: ``INVALID_ARGUMENT`` with all violations of the specification or the rows;
                ``FAILED_PRECONDITION`` where the same job was cancelled; otherwise as every call.
        """
        read = read_spec(spec)
        sources = [
            (split, given)
            for split, given in [("train", train), ("validation", validation), ("test", test), (None, rows)]
            if given is not None
        ]
        if sources and dataset is not None:
            raise refused("dataset", "contradicts the rows: pass one of them")
        if sources:
            data = Data()
        elif dataset is not None:
            data = Data(dataset=dataset.name if isinstance(dataset, Dataset) else dataset)
        elif read.data is not None:
            data, sources = read.data, list(read.data.files)
        else:
            raise refused("train", "is missing: pass rows or a dataset, or write [data] into the specification")
        if isinstance(dataset, Dataset):
            dataset_id = dataset.id
            self._learn_from_teacher(read, lambda: self._has_train_label(dataset))
        elif data.dataset is not None:
            found = self._dataset(data.dataset)
            dataset_id = found.id
            self._learn_from_teacher(read, lambda: self._has_train_label(found))
        else:
            dataset_id = self._upload(read, data, sources)
        return self._submit(read, dataset_id, again)

    def _upload(self, spec: Spec, data: Data, sources: Sequence[tuple[str | None, Rows]]) -> str:
        spool = collect(sources, data.columns, spec.closed_labels)
        try:
            if data.validation_share is not None or data.test_share is not None:
                holdout = Holdout(data.validation_share, data.test_share, data.split_seed)
                whole, spool = spool, divided(spool, holdout, spec.closed_labels is not None)
                whole.close()
            has_label = spool.has_train_label
            self._learn_from_teacher(spec, lambda: has_label)
            return upload(self._line, self._datasets(), spec.message.name, spool).id
        finally:
            spool.close()

    @staticmethod
    def _learn_from_teacher(spec: Spec, has_train_label: Callable[[], bool]) -> None:
        if spec.leaves_label_open and not has_train_label():
            spec.message.judging.label = spec_pb2.LABEL_SOURCE_TEACHER

    def _dataset(self, name: str) -> Dataset:
        request = datasets_pb2.GetDatasetRequest(name=name)
        return Dataset._of(self._ask(self._datasets().GetDataset, request).dataset)

    def _has_train_label(self, dataset: Dataset) -> bool:
        if dataset.rows_labelled in (0, dataset.rows):
            return dataset.rows_labelled > 0
        request = datasets_pb2.StreamRowsRequest(dataset_id=dataset.id, split=types_pb2.SPLIT_TRAIN)
        stub, line = self._datasets(), self._line
        chunks = line.pieces(lambda: stub.StreamRows(request, timeout=line.timeout, metadata=line.metadata))
        return any(row.example.HasField("label") for chunk in chunks for row in chunk.rows)

    def _submit(self, spec: Spec, dataset_id: str, again: bool) -> Job:
        content = spec.message.SerializeToString(deterministic=True)
        name = str(uuid.uuid4()) if again else request_id(b"distillation", dataset_id.encode(), content)
        request = distillations_pb2.SubmitDistillationRequest(request_id=name, spec=spec.message, dataset_id=dataset_id)
        job = Job._of(self._ask(self._distillations().SubmitDistillation, request).distillation)
        if job.state == "cancelled":
            words = (
                f"{job.name} ({job.id}) was cancelled and stays so: again=True makes another job of the same specification"
            )
            raise DistilleryError("FAILED_PRECONDITION", words)
        return self.resume(job) if job.state in ("paused", "failed") else job

    def get(self, job: Job | str) -> Job:
        """One job with its harvest.

        Args:
            job: The job, its id, or its name (the newest job of that name).

        Raises:
            DistilleryError: ``NOT_FOUND``; otherwise as every call.
        """
        request = distillations_pb2.GetDistillationRequest(distillation_id=self._job_id(job))
        answer = self._ask(self._distillations().GetDistillation, request)
        return Job._of(answer.distillation, answer.harvest)

    def list(self, *, states: Iterable[str] = (), name: str | None = None, limit: int = 100) -> _List[Job]:
        """Jobs, newest first.

        Args:
            states: Only these states, such as ``training``; all where there are none.
            name: Only jobs of this name.
            limit: At most so many.

        Raises:
            DistilleryError: ``INVALID_ARGUMENT``: a state has no such name; otherwise as every call.
        """
        numbers = [_numbered("states", STATES, state) for state in states]
        list_page = self._distillations().ListDistillations
        jobs: _List[Job] = []
        page = _page(limit, 0, None)
        while page is not None:
            request = distillations_pb2.ListDistillationsRequest(page=page, name=name or "")
            # The stub's type wants the enumeration where numbers are sent.
            request.states.extend(numbers)  # type: ignore[arg-type]
            answer = self._ask(list_page, request)
            jobs += map(Job._of, answer.distillations)
            page = _page(limit, len(jobs), answer.next_page_token)
        return jobs

    def watch(self, job: Job | str, *, after: int = 0, timeout: float | None = None) -> Iterator[Event]:
        """Follow a job until it ends or pauses. After a lost connection it resumes behind the last event.

        Args:
            job: The job, its id, or its name (the newest job of that name).
            after: Only events after this sequence number.
            timeout: Seconds after which watching ends with ``DEADLINE_EXCEEDED``; ``None`` watches to the end of the job.

        Yields:
            Each event once, in order; between them, about every second of a harvest, a snapshot of its numbers.

        Raises:
            DistilleryError: ``NOT_FOUND``; ``DEADLINE_EXCEEDED``; otherwise as every call.
        """
        ends = None if timeout is None else time.monotonic() + timeout
        line, stub = self._line, self._distillations()
        request = distillations_pb2.WatchDistillationRequest(distillation_id=self._job_id(job), after_sequence=after)
        patience = line.patience()
        while True:
            line.check_open()
            seconds = _WATCH_SECONDS if ends is None else min(_WATCH_SECONDS, max(0.0, ends - time.monotonic()))
            stream = stub.WatchDistillation(request, timeout=seconds, metadata=line.metadata)
            try:
                for message in stream:
                    patience.restored()
                    request.after_sequence = max(request.after_sequence, message.sequence)
                    yield Event._of(message)
                return
            except grpc.RpcError as error:
                failed = of_call(error)
            finally:
                cancel(stream)
            if failed.code == "DEADLINE_EXCEEDED":
                if ends is not None and time.monotonic() >= ends:
                    raise DistilleryError(failed.code, f"the job did not end within {timeout:g} seconds")
                continue
            patience.wait(failed)

    def cancel(self, job: Job | str, reason: str = "") -> Job:
        """Cancel a job. Completions are kept; a job that was cancelled before stays as it is.

        Args:
            job: The job, its id, or its name (the newest job of that name).
            reason: Why, for the records.

        Raises:
            DistilleryError: ``FAILED_PRECONDITION``: it has succeeded or failed; ``NOT_FOUND``; otherwise as every call.
        """
        request = distillations_pb2.CancelDistillationRequest(distillation_id=self._job_id(job), reason=reason)
        return Job._of(self._ask(self._distillations().CancelDistillation, request).distillation)

    def resume(self, job: Job | str) -> Job:
        """Resume a paused or failed job in the state in which it stopped; parked prompts are asked again.

        Args:
            job: The job, its id, or its name (the newest job of that name).

        Raises:
            DistilleryError: ``FAILED_PRECONDITION``: it has succeeded or was cancelled; ``NOT_FOUND``; otherwise as every
                call.
        """
        request = distillations_pb2.ResumeDistillationRequest(distillation_id=self._job_id(job))
        return Job._of(self._ask(self._distillations().ResumeDistillation, request).distillation)

    def ledger(
        self,
        job: Job | str,
        *,
        verdict: str | None = None,
        reasons: Iterable[str] = (),
        model: str | None = None,
        limit: int | None = None,
    ) -> Ledger:
        """The ledger of a job: every completion with its verdict, in order of row and sample.

        Args:
            job: The job, its id, or its name (the newest job of that name).
            verdict: Only ``accepted``, ``rejected`` or ``unjudged`` entries.
            reasons: Only entries that were rejected for one of these reasons, such as ``disagrees``.
            model: Only answers of this model.
            limit: At most so many entries.

        Returns:
            What can be iterated, again and again; nothing is asked before.

        Raises:
            DistilleryError: ``INVALID_ARGUMENT``: a verdict or reason has no such name; ``NOT_FOUND``.
        """
        request = rationales_pb2.ListRationalesRequest(distillation_id=self._job_id(job), model=model or "")
        if verdict is not None:
            request.verdict = _numbered("verdict", VERDICTS, verdict)  # type: ignore[assignment]
        request.reasons.extend(_numbered("reasons", REASONS, reason) for reason in reasons)  # type: ignore[misc]
        stub = RationalesServiceStub(self._line.to(JOBS))
        return Ledger(lambda page: self._ask(stub.ListRationales, page), request, limit)

    # Models.

    def models(self, *, name: str | None = None, limit: int = 100) -> _List[Model]:
        """Published students, newest first.

        Args:
            name: Only versions of this name.
            limit: At most so many.

        Raises:
            DistilleryError: As every call.
        """
        list_page = ModelsServiceStub(self._line.to(JOBS)).ListModels
        models: _List[Model] = []
        page = _page(limit, 0, None)
        while page is not None:
            answer = self._ask(list_page, models_pb2.ListModelsRequest(page=page, name=name or ""))
            models += map(Model._of, answer.models)
            page = _page(limit, len(models), answer.next_page_token)
        return models

    def model(self, which: Job | str) -> Model:
        """One published student.

        Args:
            which: ``name`` for the newest version, ``name@version``, or the job that made it.

        Raises:
            DistilleryError: ``NOT_FOUND``, also for a job that has no model (yet); otherwise as every call.
        """
        if isinstance(which, Job):
            if not which.model_id:
                raise DistilleryError("NOT_FOUND", f"{which.name} ({which.id}) has no model: it is {which.state}")
            request = models_pb2.GetModelRequest(model_id=which.model_id)
        else:
            name, version = _name_and_version(which)
            request = models_pb2.GetModelRequest(model_name=models_pb2.ModelName(name=name, version=version))
        return Model._of(self._ask(ModelsServiceStub(self._line.to(JOBS)).GetModel, request).model)

    def wait_until_served(self, model: str | Model, timeout: float = 60.0) -> None:
        """Wait until a model answers: the inference service loads it shortly after it is published.

        Args:
            model: ``name`` (any version), ``name@version``, or a model as returned.
            timeout: Seconds to wait at most.

        Raises:
            DistilleryError: ``DEADLINE_EXCEEDED``; otherwise as every call.
        """
        name, version = _name_and_version(model)
        ready = self._line.to(ANSWERS).unary_unary(
            "/inference.GRPCInferenceService/ModelReady",
            request_serializer=wire_pb2.ModelReadyRequest.SerializeToString,
            response_deserializer=wire_pb2.ModelReadyResponse.FromString,
        )
        request = wire_pb2.ModelReadyRequest(name=name, version=str(version) if version else "")
        ends = time.monotonic() + timeout
        while not self._ask(ready, request).ready:
            if time.monotonic() >= ends:
                raise DistilleryError("DEADLINE_EXCEEDED", f"the model `{model}` is not served after {timeout:g} seconds")
            time.sleep(_POLL_SECONDS)

    # Answers.

    @overload
    def predict(  # type: ignore[overload-overlap]  # A text and a mapping are iterables too: they are one row.
        self, model: str | Model, inputs: Input, *, route_below: float | None = None
    ) -> Prediction: ...

    @overload
    def predict(
        self,
        model: str | Model,
        inputs: Iterable[Input],
        *,
        route_below: float | None = None,
        concurrency: int = 64,
        return_errors: Literal[False] = False,
    ) -> Iterator[Prediction]: ...

    @overload
    def predict(
        self,
        model: str | Model,
        inputs: Iterable[Input],
        *,
        route_below: float | None = None,
        concurrency: int = 64,
        return_errors: Literal[True],
    ) -> Iterator[Prediction | DistilleryError]: ...

    def predict(
        self,
        model: str | Model,
        inputs: Input | Iterable[Input],
        *,
        route_below: float | None = None,
        concurrency: int = 64,
        return_errors: bool = False,
    ) -> Prediction | Iterator[Prediction] | Iterator[Prediction | DistilleryError]:
        """The label of one row, or of many.

        Args:
            model: ``name`` for the newest version, ``name@version``, or a model as returned; empty where the server has only
                one.
            inputs: A text or row, or an iterable of them, which is read as answers are taken: it may be endless.
            route_below: Where an answer's log-probability is below this, its ``ask_teacher`` is true.
            concurrency: Rows in flight at once, 1 to 256; the student batches them. A server that has too much to do gets
                fewer.
            return_errors: Yield the error of a row that was refused in its place, and go on, instead of raising it. What
                concerns the call as a whole (no such model, no connection) is raised all the same.

        Returns:
            A prediction, or an iterator of predictions in the order of the rows.

        Raises:
            DistilleryError: ``NOT_FOUND``: there is no such model here; ``INVALID_ARGUMENT`` or ``FAILED_PRECONDITION``: a
                row that the student cannot answer, whose place is in ``row``; otherwise as every call.
        """
        name, version = _name_and_version(model)

        def question(row: types_pb2.Example) -> inference_pb2.PredictRequest:
            return inference_pb2.PredictRequest(model=name, version=version, example=row, route_below=route_below)

        return self._answered(self._inference().Predict, question, inputs, concurrency, return_errors)

    @overload
    def predict_and_explain(  # type: ignore[overload-overlap]  # As in predict.
        self, model: str | Model, inputs: Input, *, tokens_max: int = 0, route_below: float | None = None
    ) -> Prediction: ...

    @overload
    def predict_and_explain(
        self,
        model: str | Model,
        inputs: Iterable[Input],
        *,
        tokens_max: int = 0,
        route_below: float | None = None,
        concurrency: int = 64,
        return_errors: Literal[False] = False,
    ) -> Iterator[Prediction]: ...

    @overload
    def predict_and_explain(
        self,
        model: str | Model,
        inputs: Iterable[Input],
        *,
        tokens_max: int = 0,
        route_below: float | None = None,
        concurrency: int = 64,
        return_errors: Literal[True],
    ) -> Iterator[Prediction | DistilleryError]: ...

    def predict_and_explain(
        self,
        model: str | Model,
        inputs: Input | Iterable[Input],
        *,
        tokens_max: int = 0,
        route_below: float | None = None,
        concurrency: int = 64,
        return_errors: bool = False,
    ) -> Prediction | Iterator[Prediction] | Iterator[Prediction | DistilleryError]:
        """Label and rationale of one row, or of many; everything else as in `predict`.

        Args:
            tokens_max: Most tokens of a rationale; 0 for the model's own limit.
        """
        name, version = _name_and_version(model)

        def question(row: types_pb2.Example) -> inference_pb2.PredictAndExplainRequest:
            return inference_pb2.PredictAndExplainRequest(
                model=name, version=version, example=row, tokens_max=tokens_max, route_below=route_below
            )

        return self._answered(self._inference().PredictAndExplain, question, inputs, concurrency, return_errors)

    def _answered(
        self,
        method: _Method[_Question],
        question: Callable[[types_pb2.Example], _Question],
        inputs: Input | Iterable[Input],
        concurrency: int,
        return_errors: bool,
    ) -> Prediction | Iterator[Prediction] | Iterator[Prediction | DistilleryError]:
        if isinstance(inputs, (str, Mapping)):
            return Prediction._of(self._ask(method, question(_example(inputs))))
        if not 1 <= concurrency <= _CONCURRENCY_MAX:
            raise refused("concurrency", f"must lie between 1 and {_CONCURRENCY_MAX}")
        return _Window(self._line, method, question, concurrency).answers(inputs, return_errors)

    def explain(self, model: str | Model, input: Input, *, tokens_max: int = 0) -> Iterator[str]:
        """The rationale of one row, piece by piece, as the student writes it.

        Args:
            model: As in `predict`.
            input: A text or row.
            tokens_max: Most tokens; 0 for the model's own limit.

        Yields:
            Pieces of text; joined they are the rationale.

        Raises:
            DistilleryError: As `predict`, for one row.
        """
        name, version = _name_and_version(model)
        request = inference_pb2.ExplainRequest(model=name, version=version, example=_example(input), tokens_max=tokens_max)
        line, stub = self._line, self._inference()
        pieces = line.pieces(lambda: stub.Explain(request, timeout=line.timeout, metadata=line.metadata))
        return (piece.text for piece in pieces)

    def generate(
        self,
        model: str | Model,
        input: str,
        *,
        tokens_max: int = 0,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Iterator[str]:
        """Free text from the input as given, piece by piece.

        Args:
            model: As in `predict`.
            input: The input, including its task prefix (``predict: `` or ``explain: ``) where one is wanted.
            tokens_max: Most tokens; 0 for the model's own limit.
            temperature: Sampling temperature, 0 to 10; 0 is greedy.
            top_k: Sample from this many most likely tokens; 0 for all.
            top_p: Nucleus mass, above 0 and up to 1.
            seed: The sampling's seed.

        Yields:
            Pieces of text.

        Raises:
            DistilleryError: ``NOT_FOUND``: there is no such model here; ``INVALID_ARGUMENT``; otherwise as every call.
        """
        name, version = _name_and_version(model)
        request = inference_pb2.GenerateRequest(
            model=name,
            version=version,
            input=input,
            tokens_max=tokens_max,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
        )
        line, stub = self._line, self._inference()
        pieces = line.pieces(lambda: stub.Generate(request, timeout=line.timeout, metadata=line.metadata))
        return (piece.text for piece in pieces)


class Ledger(Iterable[Entry]):
    """Entries of a job's ledger. Each iteration asks for them anew, page by page."""

    def __init__(
        self,
        ask: Callable[[rationales_pb2.ListRationalesRequest], rationales_pb2.ListRationalesResponse],
        request: rationales_pb2.ListRationalesRequest,
        limit: int | None,
    ) -> None:
        self._ask = ask
        self._request = request
        self._limit = limit

    def __iter__(self) -> Iterator[Entry]:
        seen = 0
        page = _page(self._limit, seen, None)
        while page is not None:
            request = rationales_pb2.ListRationalesRequest(page=page)
            request.MergeFrom(self._request)
            answer = self._ask(request)
            # A page holds whole rows, and may be longer than what is left.
            rest = len(answer.rationales) if self._limit is None else self._limit - seen
            for entry in answer.rationales[:rest]:
                seen += 1
                yield Entry._of(entry)
            page = _page(self._limit, seen, answer.next_page_token)

    def to_pandas(self) -> pandas.DataFrame:
        """All entries as a table with a column for each field of `Entry`. It is held in memory.

        Raises:
            ImportError: pandas is not installed (``pip install 'distillery-client[pandas]'``).
            DistilleryError: As every call.
        """
        import pandas

        columns = list(Entry.__dataclass_fields__)
        table: pandas.DataFrame = pandas.DataFrame.from_records([vars(entry) for entry in self], columns=columns)
        return table


_Answer = inference_pb2.PredictResponse | inference_pb2.PredictAndExplainResponse


class _Future(Protocol):
    """A call that is being made."""

    def result(self) -> _Answer: ...

    def done(self) -> bool: ...

    def exception(self) -> BaseException | None: ...

    def cancel(self) -> bool: ...


class _Method(Protocol[_Question]):
    """A method of the API with one answer."""

    def __call__(self, request: _Question, *, timeout: float, metadata: Metadata) -> _Answer: ...

    def future(self, request: _Question, *, timeout: float, metadata: Metadata) -> _Future: ...


class _Asked(Generic[_Question]):
    """A row in flight."""

    def __init__(self, row: int, request: _Question | None, refusal: DistilleryError | None) -> None:
        self.row = row
        self.request = request
        # What is known before it is sent.
        self.refusal = refusal
        self.future: _Future | None = None


class _Window(Generic[_Question]):
    """Many rows, a bounded number of them in flight, answered in order."""

    def __init__(
        self,
        line: Line,
        method: _Method[_Question],
        question: Callable[[types_pb2.Example], _Question],
        concurrency: int,
    ) -> None:
        self._line = line
        self._method = method
        self._question = question
        self._concurrency = concurrency
        # Halved when the server has too much to do; one more when as many rows as it holds were answered.
        self._width = float(concurrency)
        self._waiting: deque[_Asked[_Question]] = deque()
        self._patience = line.patience()

    @overload
    def answers(self, inputs: Iterable[Input], return_errors: Literal[False]) -> Iterator[Prediction]: ...

    @overload
    def answers(self, inputs: Iterable[Input], return_errors: bool) -> Iterator[Prediction | DistilleryError]: ...

    def answers(self, inputs: Iterable[Input], return_errors: bool) -> Iterator[Prediction | DistilleryError]:
        rows = enumerate(inputs)
        try:
            while True:
                while len(self._waiting) < int(self._width):
                    numbered = next(rows, None)
                    if numbered is None:
                        break
                    self._waiting.append(self._asked(*numbered))
                if not self._waiting:
                    return
                try:
                    yield Prediction._of(self._first())
                except DistilleryError as error:
                    if not return_errors or error.row is None:
                        raise
                    yield error
        finally:
            for asked in self._waiting:
                if asked.future is not None:
                    asked.future.cancel()

    def _asked(self, row: int, given: Input) -> _Asked[_Question]:
        try:
            asked = _Asked(row, self._question(_example(given)), None)
        except DistilleryError as error:
            error.row = row
            return _Asked(row, None, error)
        self._send(asked)
        return asked

    def _send(self, asked: _Asked[_Question]) -> None:
        if asked.request is not None:
            line = self._line
            line.check_open()
            asked.future = self._method.future(asked.request, timeout=line.timeout, metadata=line.metadata)

    def _first(self) -> _Answer:
        """The answer to the row that waits longest."""
        while True:
            asked = self._waiting[0]
            if asked.future is None:
                self._waiting.popleft()
                raise asked.refusal or RuntimeError("a row was neither sent nor refused")
            try:
                answer = asked.future.result()
            except grpc.RpcError as error:
                failed = of_call(error)
            else:
                self._waiting.popleft()
                self._patience.restored()
                self._width = min(self._width + 1 / self._width, self._concurrency)
                return answer
            if not is_passing(failed):
                self._waiting.popleft()
                if failed.code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION"):
                    # It concerns the row and not the server.
                    failed.row = asked.row
                raise failed
            self._patience.wait(failed)
            self._width = max(1.0, self._width / 2)
            self._send_failed()

    def _send_failed(self) -> None:
        """Sends what failed with the first row again, as far as the window goes now; the rest follows when it is first."""
        for place, asked in enumerate(self._waiting):
            if place == 0 or (place < self._width and asked.future is not None and _has_passing(asked.future)):
                self._send(asked)


def _has_passing(future: _Future) -> bool:
    if not future.done():
        return False
    error = future.exception()
    return isinstance(error, grpc.RpcError) and is_passing(of_call(error))


def _example(given: Input) -> types_pb2.Example:
    if isinstance(given, str):
        given = {"input": given}
    elif not isinstance(given, Mapping):
        raise refused("input", f"is {type(given).__name__}: a row is a text or a mapping, such as {{'input': '...'}}")
    found: _List[Violation] = []
    message = example(given, found)
    if found:
        raise invalid(found)
    return message


def _name_and_version(model: str | Model) -> tuple[str, int]:
    if isinstance(model, Model):
        return model.name, model.version
    name, separator, version = model.partition("@")
    if not separator:
        return name, 0
    if not version.isascii() or not version.isdecimal() or int(version) == 0 or len(version) > 18:
        raise refused("model", f"{model}: `{version}` is not a version: write {name}@1, or {name} for the newest")
    return name, int(version)


def _numbered(field: str, known: Mapping[str, int], name: str) -> int:
    if name not in known:
        raise refused(field, f"`{name}` is not known{suggestion(name, list(known))}")
    return known[name]


def _page(limit: int | None, seen: int, token: str | None) -> types_pb2.PageRequest | None:
    """The request of the page after `seen` entries, which `token` came with (``None`` before the first one); ``None`` at the
    end."""
    size = _PAGE_ROWS if limit is None else min(_PAGE_ROWS, limit - seen)
    if size <= 0 or token == "":
        return None
    return types_pb2.PageRequest(page_size=size, page_token=token or "")
