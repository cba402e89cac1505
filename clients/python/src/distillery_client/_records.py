"""What the services answer, as plain records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from distillery_client._proto import (
    datasets_pb2,
    distillations_pb2,
    inference_pb2,
    models_pb2,
    rationales_pb2,
    spec_pb2,
    types_pb2,
)
from distillery_client._spec import names

_DISTILLATIONS = distillations_pb2.DESCRIPTOR.enum_types_by_name
_RATIONALES = rationales_pb2.DESCRIPTOR.enum_types_by_name
STATES = names(_DISTILLATIONS["DistillationState"])
VERDICTS = names(_RATIONALES["Verdict"])
REASONS = names(_RATIONALES["Reason"])
_SPLITS = types_pb2.DESCRIPTOR.enum_types_by_name["Split"]
_SHARES = spec_pb2.DESCRIPTOR.enum_types_by_name["RationaleShare"]


def name_of(enum: EnumDescriptor, number: int) -> str:
    """The name of a value; empty where it is unset, the number where a newer server sent it."""
    if number == 0:
        return ""
    return {value: name for name, value in names(enum).items()}.get(number, str(number))


def _time(at: Timestamp) -> datetime:
    return at.ToDatetime(tzinfo=timezone.utc)


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers with its 95% bootstrap interval."""

    rows: int
    """Rows measured."""
    correct: int
    """Rows answered right."""
    parsed: int
    """Rows whose answer could be read."""
    low: float
    """The lower end of the interval, from 0 to 1."""
    high: float
    """The upper end of the interval, from 0 to 1."""

    @property
    def value(self) -> float:
        """The share, from 0 to 1; 0 where no row was measured."""
        return self.correct / self.rows if self.rows else 0.0

    def __str__(self) -> str:
        return f"{self.value:.1%} ({self.low:.1%} to {self.high:.1%}, {self.rows:,} rows)"

    @classmethod
    def _of(cls, message: types_pb2.Accuracy) -> Accuracy:
        return cls(message.rows, message.correct, message.parsed, message.low, message.high)


@dataclass(frozen=True)
class Dataset:
    """A set of rows at the server."""

    id: str
    name: str
    is_committed: bool
    """Whether it is complete and immutable."""
    rows: int
    rows_train: int
    rows_validation: int
    rows_test: int
    rows_labelled: int
    """Rows with a gold label."""
    fingerprint: str
    """sha256 (hex) over the rows in order; empty until it is committed."""
    created_at: datetime

    @classmethod
    def _of(cls, message: datasets_pb2.Dataset) -> Dataset:
        return cls(
            id=message.id,
            name=message.name,
            is_committed=message.state == datasets_pb2.DATASET_STATE_COMMITTED,
            rows=message.rows,
            rows_train=message.rows_train,
            rows_validation=message.rows_validation,
            rows_test=message.rows_test,
            rows_labelled=message.rows_labelled,
            fingerprint=message.fingerprint,
            created_at=_time(message.created_at),
        )


@dataclass(frozen=True)
class Harvest:
    """Numbers of a harvest."""

    prompts: Mapping[str, int]
    """Prompts by state: pending, leased, answered, parked, skipped."""
    verdicts: Mapping[str, int]
    """Train entries of the ledger by verdict: unjudged, accepted, rejected."""
    reasons: Mapping[str, int]
    """Rejected train entries by reason."""
    calls: int
    """Calls to the teacher that were paid for."""
    cache_hits: int
    """Prompts that were answered from the store, for nothing."""
    tokens_in: int
    tokens_out: int
    money_micros: int
    """Money spent, in millionths of the profile's currency."""
    expected: int
    """Prompts that the whole harvest is expected to have."""
    obstacle: str
    """Why the teacher answers nothing at present; empty where it does."""

    @classmethod
    def _of(cls, message: distillations_pb2.HarvestProgress) -> Harvest:
        return cls(
            prompts={count.name: count.count for count in message.prompts},
            verdicts={count.name: count.count for count in message.verdicts},
            reasons={count.name: count.count for count in message.reasons},
            calls=message.calls,
            cache_hits=message.cache_hits,
            tokens_in=message.tokens_in,
            tokens_out=message.tokens_out,
            money_micros=message.money_micros,
            expected=message.expected,
            obstacle=message.obstacle,
        )


@dataclass(frozen=True)
class Job:
    """A distillation."""

    id: str
    name: str
    """The specification's name, and that of the model it publishes."""
    state: str
    """``queued``, ``harvesting``, ``training``, ``evaluating``, ``succeeded``, ``failed``, ``cancelled`` or ``paused``."""
    reason: str
    """Why it is paused, failed or cancelled; empty otherwise."""
    dataset_id: str
    run_id: str
    """Its training run; empty until there is one."""
    model_id: str
    """Its model; empty until there is one."""
    created_at: datetime
    updated_at: datetime
    """When its state last changed."""
    harvest_seconds: float
    train_seconds: float
    evaluate_seconds: float
    teacher_accuracy: Accuracy | None = None
    """The teacher on the test rows; ``None`` until it is measured."""
    harvest: Harvest | None = None
    """Its harvest; only in what ``Client.get`` returns."""
    spec: spec_pb2.DistillationSpec = field(default_factory=spec_pb2.DistillationSpec, repr=False, compare=False)
    """The specification with every default filled in, as the API's message."""

    @property
    def has_ended(self) -> bool:
        """Whether it succeeded, failed or was cancelled."""
        return self.state in ("succeeded", "failed", "cancelled")

    @classmethod
    def _of(cls, message: distillations_pb2.Distillation, harvest: distillations_pb2.HarvestProgress | None = None) -> Job:
        return cls(
            id=message.id,
            name=message.spec.name,
            state=name_of(_DISTILLATIONS["DistillationState"], message.state),
            reason=message.reason,
            dataset_id=message.dataset_id,
            run_id=message.run_id,
            model_id=message.model_id,
            created_at=_time(message.created_at),
            updated_at=_time(message.updated_at),
            harvest_seconds=message.harvest_seconds,
            train_seconds=message.train_seconds,
            evaluate_seconds=message.evaluate_seconds,
            teacher_accuracy=Accuracy._of(message.teacher_accuracy) if message.HasField("teacher_accuracy") else None,
            harvest=None if harvest is None else Harvest._of(harvest),
            spec=message.spec,
        )


@dataclass(frozen=True)
class Event:
    """Something that happened to a job. Fields that do not belong to its `kind` are ``None`` or empty."""

    kind: str
    """``state_changed``, ``harvest_progress``, ``training_progress``, ``evaluated``, ``teacher_measured``, ``probing``,
    ``probed`` or ``published``."""
    sequence: int
    """Counts up from 1 without gaps; 0 for ``harvest_progress``, which is a snapshot and no event."""
    at: datetime
    state: str | None = None
    """The job's state now (``state_changed``)."""
    reason: str = ""
    """Why it changed (``state_changed``)."""
    harvest: Harvest | None = None
    """(``harvest_progress``)"""
    step: int | None = None
    """Optimiser steps done (``training_progress``, ``evaluated``)."""
    steps: int | None = None
    """Optimiser steps at most (``training_progress``)."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The numbers of the step by name, such as ``loss_label`` (``training_progress``)."""
    split: str | None = None
    """On which rows (``evaluated``)."""
    accuracy: Accuracy | None = None
    """(``evaluated``, ``teacher_measured``, ``probed``)"""
    share: str | None = None
    """Whose rationales a probe reads: ``none``, ``eighth``, ``quarter``, ``half`` or ``all`` (``probing``, ``probed``)."""
    model: str | None = None
    """``name@version`` (``published``)."""

    def __str__(self) -> str:
        if self.harvest is not None:
            answered = self.harvest.prompts.get("answered", 0)
            obstacle = f", the teacher does not answer: {self.harvest.obstacle}" if self.harvest.obstacle else ""
            # How many there will be is not known at once.
            of = f" of {self.harvest.expected:,}" if self.harvest.expected else ""
            return f"harvest: {answered:,}{of} prompts{obstacle}"
        if self.kind == "training_progress":
            metrics = "".join(f", {name} {value:.4g}" for name, value in self.metrics.items())
            return f"training: step {self.step or 0:,} of {self.steps or 0:,}{metrics}"
        if self.kind == "state_changed":
            return f"{self.state}: {self.reason}" if self.reason else f"{self.state}"
        words = [self.kind.replace("_", " "), self.split, self.share, self.model, self.accuracy and str(self.accuracy)]
        return " ".join(word for word in words if word)

    @classmethod
    def _of(cls, message: distillations_pb2.WatchDistillationResponse) -> Event:
        kind = message.WhichOneof("event") or ""
        sequence, at = message.sequence, _time(message.at)
        if kind == "state_changed":
            changed = message.state_changed
            state = name_of(_DISTILLATIONS["DistillationState"], changed.to)
            return cls(kind, sequence, at, state=state, reason=changed.reason)
        if kind == "harvest_progress":
            return cls(kind, sequence, at, harvest=Harvest._of(message.harvest_progress))
        if kind == "training_progress":
            progress = message.training_progress
            metrics = {point.name: point.value for point in progress.metrics}
            return cls(kind, sequence, at, step=progress.step, steps=progress.steps, metrics=metrics)
        if kind == "evaluated":
            measured = message.evaluated
            accuracy, split = Accuracy._of(measured.accuracy), name_of(_SPLITS, measured.split)
            return cls(kind, sequence, at, step=measured.step, split=split, accuracy=accuracy)
        if kind == "teacher_measured":
            return cls(kind, sequence, at, accuracy=Accuracy._of(message.teacher_measured.accuracy))
        if kind == "probing":
            return cls(kind, sequence, at, share=name_of(_SHARES, message.probing.share))
        if kind == "probed":
            accuracy = Accuracy._of(message.probed.accuracy)
            return cls(kind, sequence, at, share=name_of(_SHARES, message.probed.share), accuracy=accuracy)
        if kind == "published":
            return cls(kind, sequence, at, model=f"{message.published.name}@{message.published.version}")
        # A newer server's.
        return cls(kind, sequence, at)


@dataclass(frozen=True)
class Entry:
    """An entry of a job's ledger: a completion with its verdict."""

    row: int
    """The row's index in the dataset, from 0."""
    sample: int
    """The number of the prompt among those about the row, from 0."""
    hinted: bool
    """Whether the gold label was given."""
    evaluates: bool
    """Whether it measures the teacher instead of training the student."""
    rationale: str
    """Empty where none was read."""
    label: str | None
    """``None`` where none was read."""
    verdict: str
    """``unjudged``, ``accepted`` or ``rejected``."""
    reason: str
    """Why it was rejected, such as ``disagrees``; empty otherwise."""
    weight: float
    """Its weight in the row's rationale loss."""
    completion: str
    """The completion as received."""
    model: str
    """The model that answered."""
    prompt_id: str

    @classmethod
    def _of(cls, message: rationales_pb2.Rationale) -> Entry:
        return cls(
            row=message.row,
            sample=message.sample,
            hinted=message.hinted,
            evaluates=message.evaluates,
            rationale=message.rationale,
            label=message.label if message.HasField("label") else None,
            verdict=name_of(_RATIONALES["Verdict"], message.verdict),
            reason=name_of(_RATIONALES["Reason"], message.reason),
            weight=message.weight,
            completion=message.completion,
            model=message.model,
            prompt_id=message.prompt_id,
        )


@dataclass(frozen=True)
class Model:
    """A published student."""

    id: str
    name: str
    version: int
    """Counts up by name, from 1."""
    distillation_id: str
    """The job that made it."""
    parameters: int
    """The number of its parameters."""
    path: str
    """Its folder in the checkpoint store."""
    manifest_sha256: str
    created_at: datetime
    validation: Accuracy | None = None
    """On the validation rows; ``None`` where there are none."""
    test: Accuracy | None = None
    """On the test rows; ``None`` where there are none."""

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    @classmethod
    def _of(cls, message: models_pb2.Model) -> Model:
        return cls(
            id=message.id,
            name=message.name,
            version=message.version,
            distillation_id=message.distillation_id,
            parameters=message.parameters,
            path=message.path,
            manifest_sha256=message.manifest_sha256,
            created_at=_time(message.created_at),
            validation=Accuracy._of(message.validation) if message.HasField("validation") else None,
            test=Accuracy._of(message.test) if message.HasField("test") else None,
        )


@dataclass(frozen=True)
class Prediction:
    """What a student says of one row."""

    label: str
    probabilities: Mapping[str, float]
    """Each label of a closed set with its probability, in the set's order; empty for an open set."""
    log_probability: float
    """The natural logarithm of the answer's probability: among the labels of a closed set, else of the text."""
    ask_teacher: bool
    """Whether it is below the caller's `route_below`; ``False`` where none was given."""
    model: str
    """The model that answered."""
    version: int
    """Its version; 0 for a model that was opened from a folder."""
    rationale: str | None = None
    """``None`` where it was not asked for."""

    @property
    def probability(self) -> float:
        """The answer's probability, from 0 to 1."""
        return math.exp(self.log_probability)

    @classmethod
    def _of(cls, message: inference_pb2.PredictResponse | inference_pb2.PredictAndExplainResponse) -> Prediction:
        rationale = message.rationale if isinstance(message, inference_pb2.PredictAndExplainResponse) else None
        return cls(
            label=message.label,
            probabilities={entry.label: entry.probability for entry in message.probabilities},
            log_probability=message.log_probability,
            ask_teacher=message.ask_teacher,
            model=message.answerer.model,
            version=message.answerer.version,
            rationale=rationale,
        )
