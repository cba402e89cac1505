"""A client in another language, built from `proto/` only: it uploads rows, submits a job, watches it, and calls the student.

    python client.py PROTO_FOLDER HOST:PORT        (the token in DISTILLERY_TOKEN)

It prints one JSON object: the services that the server's reflection lists, the states that the job went through, the
teacher's calls, and the student's answers.
"""

import json
import os
import pathlib
import sys
import tempfile
import time
import uuid

import grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_tools import protoc

DEADLINE_SECONDS = 120
ROWS = 24


def generated(proto: pathlib.Path) -> pathlib.Path:
    """Python modules generated from the definitions, in a temporary folder."""
    out = pathlib.Path(tempfile.mkdtemp())
    files = sorted(str(path.relative_to(proto)) for path in (proto / "distillery/v1").glob("*.proto"))
    imported = proto / "third_party/googleapis"
    files += sorted(str(path.relative_to(imported)) for path in imported.glob("google/api/*.proto"))
    include = pathlib.Path(protoc.__file__).parent / "_proto"
    arguments = [
        "protoc",
        f"-I{proto}",
        f"-I{imported}",
        f"-I{include}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        *files,
    ]
    if protoc.main(arguments) != 0:
        sys.exit("protoc failed")
    return out


def main() -> None:
    proto, address = pathlib.Path(sys.argv[1]), sys.argv[2]
    sys.path.insert(0, str(generated(proto)))
    from distillery.v1 import (
        datasets_pb2,
        datasets_pb2_grpc,
        distillations_pb2,
        distillations_pb2_grpc,
        inference_pb2,
        inference_pb2_grpc,
        spec_pb2,
        types_pb2,
    )

    channel = grpc.insecure_channel(address)
    call = {"metadata": [("authorization", f"Bearer {os.environ['DISTILLERY_TOKEN']}")], "timeout": DEADLINE_SECONDS}
    intercepted = grpc.intercept_channel(channel, Bearer(call["metadata"]))
    services = sorted(ProtoReflectionDescriptorDatabase(intercepted).get_services())

    datasets = datasets_pb2_grpc.DatasetsServiceStub(channel)
    request = datasets_pb2.CreateDatasetRequest(request_id=str(uuid.uuid4()), name="python")
    dataset = datasets.CreateDataset(request, **call).dataset
    examples = [
        types_pb2.Example(
            input=f"Ann has {row + 2} pens in box {row + 1} and buys {row + 3} more. How many pens has she?",
            label=f"( {row + 2} + {row + 3} )",
            split=types_pb2.SPLIT_TEST if row % 6 == 5 else types_pb2.SPLIT_TRAIN,
        )
        for row in range(ROWS)
    ]
    chunks = [datasets_pb2.UploadRowsRequest(dataset_id=dataset.id, offset=0, examples=examples)]
    datasets.UploadRows(iter(chunks), **call)
    datasets.CommitDataset(datasets_pb2.CommitDatasetRequest(dataset_id=dataset.id), **call)

    spec = spec_pb2.DistillationSpec(
        name="from-python",
        task_name="equation",
        teacher=spec_pb2.TeacherSpec(profile="local"),
        student=spec_pb2.StudentSpec(size=spec_pb2.STUDENT_SIZE_TINY, vocabulary=300),
        training=spec_pb2.TrainingSpec(steps=4, batch_examples=4, target_tokens_max=32, evaluate_every_steps=4),
    )
    distillations = distillations_pb2_grpc.DistillationsServiceStub(channel)
    submit = distillations_pb2.SubmitDistillationRequest(request_id=str(uuid.uuid4()), spec=spec, dataset_id=dataset.id)
    job = distillations.SubmitDistillation(submit, **call).distillation
    states = []
    watch = distillations_pb2.WatchDistillationRequest(distillation_id=job.id)
    for message in distillations.WatchDistillation(watch, **call):
        if message.WhichOneof("event") == "state_changed":
            states.append(distillations_pb2.DistillationState.Name(message.state_changed.to))
    shown = distillations.GetDistillation(distillations_pb2.GetDistillationRequest(distillation_id=job.id), **call)

    inference = inference_pb2_grpc.InferenceServiceStub(channel)
    predict = inference_pb2.PredictRequest(model="from-python", example=types_pb2.Example(input="Ann has 3 pens."))
    label = served(lambda: inference.Predict(predict, **call)).label
    explain = inference_pb2.ExplainRequest(model="from-python", example=predict.example)
    pieces = [piece.text for piece in inference.Explain(explain, **call)]
    print(
        json.dumps(
            {
                "services": services,
                "states": states,
                "calls": shown.harvest.calls,
                "label": label,
                "pieces": len(pieces),
                "refused": refused(distillations, distillations_pb2, channel),
            }
        )
    )


class Bearer(grpc.StreamStreamClientInterceptor):
    """Add the token to the reflection client, which has no parameter for it."""

    def __init__(self, metadata: list[tuple[str, str]]) -> None:
        self.metadata = metadata

    def intercept_stream_stream(self, continuation, details, requests):
        return continuation(details._replace(metadata=self.metadata), requests)


def served(ask):
    """A model is served shortly after it is published."""
    for _ in range(DEADLINE_SECONDS * 5):
        try:
            return ask()
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                raise
            time.sleep(0.2)
    sys.exit("the model is not served")


def refused(distillations, messages, channel) -> dict[str, str]:
    """Codes of calls that must be refused."""
    codes = {}
    for name, metadata in [("no token", []), ("wrong token", [("authorization", "Bearer wrong")])]:
        try:
            distillations.ListDistillations(messages.ListDistillationsRequest(), metadata=metadata, timeout=10)
        except grpc.RpcError as error:
            codes[name] = error.code().name
    return codes


if __name__ == "__main__":
    main()
