"""A server in this process whose answers and faults a test writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import NoReturn

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from distillery_client import Client, Violation
from distillery_client._proto import (
    datasets_pb2,
    datasets_pb2_grpc,
    distillations_pb2,
    distillations_pb2_grpc,
    inference_pb2,
    inference_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    rationales_pb2,
    rationales_pb2_grpc,
    types_pb2,
    wire_pb2,
)

JOB = "018f3a54-7c1e-7d2a-9f63-0c2b8e5d4a11"
TOKEN = "a-token-of-the-tests"


class Datasets(datasets_pb2_grpc.DatasetsServiceServicer):
    """Keeps rows as the harvester does."""

    def __init__(self) -> None:
        self.ids: dict[str, str] = {}
        self.rows: list[types_pb2.Example] = []
        self.chunks: list[datasets_pb2.UploadRowsRequest] = []
        self.committed = False
        # Streams that end with UNAVAILABLE after their first chunk.
        self.breaks = 0

    def dataset(self) -> datasets_pb2.Dataset:
        state = datasets_pb2.DATASET_STATE_COMMITTED if self.committed else datasets_pb2.DATASET_STATE_STAGED
        return datasets_pb2.Dataset(id="a-dataset", name="rows", state=state, rows=len(self.rows))

    def CreateDataset(
        self, request: datasets_pb2.CreateDatasetRequest, context: grpc.ServicerContext
    ) -> datasets_pb2.CreateDatasetResponse:
        self.ids[request.request_id] = request.name
        return datasets_pb2.CreateDatasetResponse(dataset=self.dataset())

    def UploadRows(
        self, request_iterator: Iterator[datasets_pb2.UploadRowsRequest], context: grpc.ServicerContext
    ) -> datasets_pb2.UploadRowsResponse:
        for chunk in request_iterator:
            if chunk.offset > len(self.rows):
                fail(context, grpc.StatusCode.FAILED_PRECONDITION, f"offset {chunk.offset} is beyond {len(self.rows)}")
            self.chunks.append(chunk)
            self.rows += chunk.examples[len(self.rows) - chunk.offset :]
            if self.breaks:
                self.breaks -= 1
                fail(context, grpc.StatusCode.UNAVAILABLE, "the connection broke")
        return datasets_pb2.UploadRowsResponse(rows=len(self.rows))

    def CommitDataset(
        self, request: datasets_pb2.CommitDatasetRequest, context: grpc.ServicerContext
    ) -> datasets_pb2.CommitDatasetResponse:
        self.committed = True
        return datasets_pb2.CommitDatasetResponse(dataset=self.dataset())


class Distillations(distillations_pb2_grpc.DistillationsServiceServicer):
    """Keeps what was asked of it."""

    def __init__(self) -> None:
        self.submitted: list[distillations_pb2.SubmitDistillationRequest] = []
        self.cancelled: list[distillations_pb2.CancelDistillationRequest] = []
        self.resumed = 0
        self.state = distillations_pb2.DISTILLATION_STATE_QUEUED
        # The events of each stream in turn; a stream ends with UNAVAILABLE where another one follows.
        self.streams: list[list[distillations_pb2.WatchDistillationResponse]] = []
        self.watched: list[int] = []
        self.jobs = 0
        self.faults: list[tuple[grpc.StatusCode, str, list[Violation], float | None]] = []

    def job(self, name: str = "job") -> distillations_pb2.Distillation:
        job = distillations_pb2.Distillation(id=JOB, state=self.state)
        job.spec.name = name
        return job

    def SubmitDistillation(
        self, request: distillations_pb2.SubmitDistillationRequest, context: grpc.ServicerContext
    ) -> distillations_pb2.SubmitDistillationResponse:
        self.submitted.append(request)
        self._fail(context)
        return distillations_pb2.SubmitDistillationResponse(distillation=self.job(request.spec.name))

    def ListDistillations(
        self, request: distillations_pb2.ListDistillationsRequest, context: grpc.ServicerContext
    ) -> distillations_pb2.ListDistillationsResponse:
        self._fail(context)
        first = int(request.page.page_token or "0")
        last = min(first + request.page.page_size, self.jobs)
        jobs = [distillations_pb2.Distillation(id=f"{place}") for place in range(first, last)]
        token = str(last) if last < self.jobs else ""
        return distillations_pb2.ListDistillationsResponse(distillations=jobs, next_page_token=token)

    def WatchDistillation(
        self, request: distillations_pb2.WatchDistillationRequest, context: grpc.ServicerContext
    ) -> Iterator[distillations_pb2.WatchDistillationResponse]:
        self.watched.append(request.after_sequence)
        yield from self.streams.pop(0)
        if self.streams:
            fail(context, grpc.StatusCode.UNAVAILABLE, "the connection broke")

    def CancelDistillation(
        self, request: distillations_pb2.CancelDistillationRequest, context: grpc.ServicerContext
    ) -> distillations_pb2.CancelDistillationResponse:
        self.cancelled.append(request)
        self.state = distillations_pb2.DISTILLATION_STATE_CANCELLED
        self._fail(context)
        return distillations_pb2.CancelDistillationResponse(distillation=self.job())

    def ResumeDistillation(
        self, request: distillations_pb2.ResumeDistillationRequest, context: grpc.ServicerContext
    ) -> distillations_pb2.ResumeDistillationResponse:
        self.resumed += 1
        self.state = distillations_pb2.DISTILLATION_STATE_HARVESTING
        return distillations_pb2.ResumeDistillationResponse(distillation=self.job())

    def _fail(self, context: grpc.ServicerContext) -> None:
        if self.faults:
            fail(context, *self.faults.pop(0))


class Inference(inference_pb2_grpc.InferenceServiceServicer):
    """Answers as `predict` says; by default the label is the input."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.metadata: list[tuple[str, str | bytes]] = []
        self.seconds_left: list[float] = []

    def answer(self, text: str, context: grpc.ServicerContext) -> str:
        return text

    def Predict(self, request: inference_pb2.PredictRequest, context: grpc.ServicerContext) -> inference_pb2.PredictResponse:
        self.asked.append(request.example.input)
        self.metadata += context.invocation_metadata()
        self.seconds_left.append(context.time_remaining())
        return inference_pb2.PredictResponse(
            label=self.answer(request.example.input, context),
            probabilities=[inference_pb2.LabelProbability(label="b", probability=0.75)],
            log_probability=-0.5,
            ask_teacher=request.HasField("route_below") and request.route_below > -0.5,
            answerer=inference_pb2.Answerer(model=request.model, version=request.version or 7),
        )

    def Explain(
        self, request: inference_pb2.ExplainRequest, context: grpc.ServicerContext
    ) -> Iterator[inference_pb2.ExplainResponse]:
        self.answer("explain", context)
        for text in ("be", "cause"):
            yield inference_pb2.ExplainResponse(text=text)
        self.answer("explained", context)


class Models(models_pb2_grpc.ModelsServiceServicer):
    """One model."""

    def ListModels(
        self, request: models_pb2.ListModelsRequest, context: grpc.ServicerContext
    ) -> models_pb2.ListModelsResponse:
        return models_pb2.ListModelsResponse(models=[models_pb2.Model(name="student", version=3)])


class Rationales(rationales_pb2_grpc.RationalesServiceServicer):
    """A ledger of as many entries as `count` says, two of each row."""

    def __init__(self) -> None:
        self.count = 0
        self.asked: list[rationales_pb2.ListRationalesRequest] = []

    def ListRationales(
        self, request: rationales_pb2.ListRationalesRequest, context: grpc.ServicerContext
    ) -> rationales_pb2.ListRationalesResponse:
        self.asked.append(request)
        first = int(request.page.page_token or "0")
        last = min(first + request.page.page_size, self.count)
        entries = [
            rationales_pb2.Rationale(row=place // 2, sample=place % 2, verdict=rationales_pb2.VERDICT_REJECTED)
            for place in range(first, last)
        ]
        token = str(last) if last < self.count else ""
        return rationales_pb2.ListRationalesResponse(rationales=entries, next_page_token=token)


class Fake:
    """All services at one address, as far as they are called: the other methods answer UNIMPLEMENTED."""

    def __init__(self) -> None:
        self.datasets = Datasets()  # type: ignore[abstract]
        self.distillations = Distillations()  # type: ignore[abstract]
        self.inference = Inference()  # type: ignore[abstract]
        self.rationales = Rationales()  # type: ignore[abstract]
        self._server = grpc.server(ThreadPoolExecutor(max_workers=16))
        datasets_pb2_grpc.add_DatasetsServiceServicer_to_server(self.datasets, self._server)
        distillations_pb2_grpc.add_DistillationsServiceServicer_to_server(self.distillations, self._server)
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(self.inference, self._server)
        models_pb2_grpc.add_ModelsServiceServicer_to_server(Models(), self._server)  # type: ignore[abstract]
        rationales_pb2_grpc.add_RationalesServiceServicer_to_server(self.rationales, self._server)
        self.url = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def client(self, patience: float = 20.0, timeout: float = 20.0) -> Client:
        return Client(self.url, TOKEN, patience=patience, timeout=timeout)

    def __enter__(self) -> Fake:
        self._server.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.stop(None).wait(10)


def fail(
    context: grpc.ServicerContext,
    code: grpc.StatusCode,
    message: str,
    violations: Sequence[Violation] = (),
    retry_after: float | None = None,
) -> NoReturn:
    """Ends a call as the services do: with the details of google.rpc."""
    details: list[Message] = []
    if violations:
        found = [wire_pb2.BadRequest.FieldViolation(field=one.field, description=one.message) for one in violations]
        details.append(wire_pb2.BadRequest(field_violations=found))
    if retry_after is not None:
        nanos = round(retry_after * 1e9)
        details.append(wire_pb2.RetryInfo(retry_delay=Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)))
    names = [f"type.googleapis.com/google.rpc.{type(detail).__name__}" for detail in details]
    packed = [Any(type_url=name, value=detail.SerializeToString()) for name, detail in zip(names, details)]
    status = wire_pb2.Status(code=code.value[0], message=message, details=packed)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)
