"""The JSON records of a run, typed. Read tolerantly (added keys, older records), written with stable keys.

Paths below `runs/<run id>/attempts/<n>/` are in `launcher.store.runs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from launcher.outcome import Failure, Reason
from launcher.spec.catalog import GpuPrice, HostedPrice
from launcher.spec.site import Site
from launcher.spec.strict import describe
from launcher.store.artifact import encode
from launcher.system.process_identity import ProcessIdentity


def _failure(value: Any) -> Failure:
    return value if isinstance(value, Failure) else Failure.from_json(value)


#: A failure as a field: in JSON what `Failure.to_json` returns.
FailureField = Annotated[
    Failure, PlainValidator(_failure), PlainSerializer(lambda failure: failure.to_json())
]


#: Unix time that every platform can print (year 5138).
MAX_TIME = 1e11


class Record(BaseModel):
    """Base of what the launcher itself stores: unknown keys are ignored, missing ones have defaults."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    @classmethod
    def read(cls, value: Any, where: str) -> Self:
        """The record from its JSON value. Raises Failure(CORRUPT_ARTIFACT) if it is not one."""
        try:
            return cls.model_validate_json(encode(value))
        except ValidationError as error:
            raise Failure(
                Reason.CORRUPT_ARTIFACT, "not a valid record", where=where, problems=tuple(describe(error))
            ) from None

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


class _WithoutNone(Record):
    """A record that has no key for what is None."""

    @model_serializer(mode="wrap")
    def _drop_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}


class Request(Record):
    """request.json: what an attempt is asked for besides its plan."""

    format: int = 1
    #: `local` or `cluster`.
    target: str = "local"
    budget_usd: float | None = None
    gpu_hour_usd: tuple[GpuPrice, ...] = ()
    hosted_per_million_tokens_usd: tuple[HostedPrice, ...] = ()
    #: Unix time; 0 until the attempt is opened.
    opened_at: Annotated[float, Field(ge=0, lt=MAX_TIME)] = 0.0

    @classmethod
    def of(cls, site: Site, target: str, budget_usd: float | None) -> Request:
        """A request with the site's own prices, not opened yet."""
        return cls(
            target=target,
            budget_usd=budget_usd,
            gpu_hour_usd=tuple(site.gpu_hour_usd),
            hosted_per_million_tokens_usd=tuple(site.hosted_per_million_tokens_usd),
        )

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in super().to_json().items() if key != "opened_at" or value}


class StageOutcome(_WithoutNone):
    """How a stage of a closed attempt ended."""

    state: Literal["finished", "failed", "blocked"]
    failure: FailureField | None = None
    blocked_by: str | None = None


class Outcome(Record):
    """outcome.json, which closes an attempt. `reason` is that of the first failed stage."""

    format: int = 1
    reason: Reason
    failure: FailureField | None = None
    stages: dict[str, StageOutcome] = {}
    ended_at: float = 0.0

    @property
    def succeeded(self) -> bool:
        return self.reason is Reason.SUCCEEDED


class PodTimes(Record):
    """Measured seconds of one pod: waiting (created to started) and running (to its end)."""

    pod: str
    node: str | None = None
    waiting_s: float = 0.0
    running_s: float = 0.0
    exit_code: int | None = None
    #: It was taken away (evicted, preempted, its node lost) and replaced.
    lost: bool = False


class TryStart(Record):
    """The start of one try at a stage."""

    started_at: float = 0.0


class TryEnd(Record):
    """The end of one try at a stage."""

    ended_at: float = 0.0
    reason: Reason
    exit_code: int | None = None
    #: No further try follows.
    final: bool = False
    failure: FailureField | None = None
    #: The conductor stopped or was lost: says nothing about the stage, and counts against no retry budget.
    conductor_lost: bool = False
    pods: tuple[PodTimes, ...] = ()


class Heartbeat(Record):
    """The progress of a running stage. `measures` are shown as they are: loss, tokens per second."""

    stage: str = ""
    step: int = 0
    total: int = 1
    unit: str = ""
    elapsed_s: float = 0.0
    eta_s: float | None = None
    measures: dict[str, int | float] = {}
    at: float = 0.0


@dataclass(frozen=True)
class Note:
    """Why a stage makes no progress, and what a person can do about it (empty if nothing in particular)."""

    what: str
    next_step: str = ""

    def __str__(self) -> str:
        return f"{self.what}; next: {self.next_step}" if self.next_step else self.what


class MeasuredTry(Record):
    """What a conductor measured of the pods of a running try, for the next conductor: they may be gone by then."""

    number: int
    pods: tuple[PodTimes, ...] = ()


class ConductorHeartbeat(Record):
    """conductor.json: written by a conductor in a cluster while it lives."""

    at: float = 0.0
    #: By stage: why it makes no progress, and what to do about it.
    notes: dict[str, str] = {}
    next_steps: dict[str, str] = {}
    measured: dict[str, MeasuredTry] = {}
    #: It has exited in good order, and none of its stages runs on.
    left: bool = False


class LedgerEntry(Record):
    """One entry of a run's ledger (see `launcher.costs.ledger`); a stage's newest entry counts."""

    format: int = 1
    number: Annotated[int, Field(ge=1)]
    stage: str
    attempt: int = 1
    #: What the stage may have spent, in all attempts together, once the entry is written.
    usd: Annotated[float, Field(ge=0)]
    #: False while a process may be spending up to `usd`.
    settled: bool = False
    #: Of a settled stage that ended because its allowance was used up: further dollars that it needs.
    needed_usd: Annotated[float, Field(ge=0)] | None = None
    at: float = 0.0


class Spending(Record):
    """What a hosted stage has spent in all attempts, as its own process reports it under one ledger entry."""

    format: int = 1
    #: Number of the ledger entry under which it was spent.
    entry: int
    #: The process may still be spending, or was killed.
    open: bool = False
    #: Dollars billed, or perhaps billed if the response was lost.
    usd: Annotated[float, Field(ge=0)] = 0.0
    #: Further dollars that the next request needs; None if the stage did not end for want of them.
    needed_usd: Annotated[float, Field(ge=0)] | None = None


class LeaseHolder(Record):
    """The process that took a numbered lease (see `launcher.store.lease`)."""

    format: int = 1
    #: Unique among all holders.
    holder: str
    number: Annotated[int, Field(ge=1)]
    run: str
    attempt: int = 1
    #: Without a renewal for this long the lease has expired.
    lease_s: Annotated[float, Field(gt=0, le=3600)]
    #: What started the process, if that says more of it: the uid of a Kubernetes Job.
    owner: str = ""
    host: str = ""
    machine: str = ""
    pid: int = 0
    started_ticks: int = 0

    @property
    def identity(self) -> ProcessIdentity:
        return ProcessIdentity(self.host, self.machine, self.pid, self.started_ticks)


class LeaseRenewal(Record):
    """The newest renewal of a lease. `at` is the holder's clock, for people; the store's decides."""

    format: int = 1
    at: float = 0.0
    released: bool = False


class StageMeta(Record):
    """What the manifest of a stage's artifact says of how it came to be (`Manifest.meta`)."""

    stage: str = ""
    kind: str = ""
    run: str | None = None
    attempt: int | None = None
    started_at: float = 0.0
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    device: str = ""
    versions: dict[str, str] = {}
    tokens: int | float | None = None
    trained_tokens: int | float | None = None
    prompt_tokens: int | float | None = None
    answer_tokens: int | float | None = None

    @property
    def measured_tokens(self) -> dict[str, int | float]:
        """The token counts that the stage measured, by name."""
        names = ("tokens", "trained_tokens", "prompt_tokens", "answer_tokens")
        return {name: value for name in names if (value := getattr(self, name)) is not None}
