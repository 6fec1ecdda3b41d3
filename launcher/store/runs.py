"""Runs in the store: plans, attempts, tries, heartbeats and ends of stages.

The only module that knows the names below `runs/<run id>/`. It decides nothing: the conductor does, from the
same facts.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from launcher.outcome import Failure, Reason
from launcher.spec.names import is_run_id
from launcher.spec.plan import Plan, Stage, parse
from launcher.store import Store, encode
from launcher.store.fenced import FencedStore
from launcher.store.lease import Lease, holder_of, run_lease
from launcher.store.records import (
    ConductorHeartbeat,
    Heartbeat,
    LeaseHolder,
    LedgerEntry,
    MeasuredTry,
    Note,
    Outcome,
    Record,
    Request,
    Spending,
    StageMeta,
    StageOutcome,
    TryEnd,
    TryStart,
)

_Record = TypeVar("_Record", bound=Record)
State = Literal["waiting", "running", "finished", "failed", "blocked", "stopped"]

#: How often a conductor in a cluster writes its heartbeat.
CONDUCTOR_HEARTBEAT_INTERVAL_S = 15.0
#: A conductor without a heartbeat for this long counts as lost.
_CONDUCTOR_LOST_S = 120.0

_LEDGER_ENTRY = re.compile(r"^\d{6}\.json$")
_TRY = re.compile(r"^(?P<stage>.+)-t(?P<number>\d+)\.json$")


@dataclass(frozen=True)
class Try:
    """One start of one stage. `end` is None while it runs, or if its conductor was lost."""

    stage: str
    number: int
    started_at: float
    end: TryEnd | None

    @property
    def reason(self) -> Reason | None:
        return self.end.reason if self.end else None


@dataclass(frozen=True)
class StageStatus:
    """The state of one stage."""

    stage: Stage
    state: State
    tries: tuple[Try, ...]
    heartbeat: Heartbeat | None
    failure: Failure | None = None
    blocked_by: str | None = None
    seconds: float | None = None
    reused: bool = False
    #: Why it makes no progress, if the conductor knows ("0/1 nodes are available: …").
    note: Note | None = None


@dataclass
class Attempt:
    """The files of one attempt at a run."""

    store: Store
    run_id: str
    number: int

    def under(self, lease: Lease) -> Attempt:
        """The same attempt, written only while `lease` is held."""
        return Attempt(FencedStore(self.store, lease), self.run_id, self.number)

    def path(self, name: str) -> str:
        return f"runs/{self.run_id}/attempts/{self.number}/{name}"

    def get(self, name: str) -> Any:
        return self.store.get_json(self.path(name))

    def put(self, name: str, value: Any, *, create_once: bool = True) -> bool:
        return self.store.put_json(self.path(name), value, create_once=create_once)

    def _read(self, record: type[_Record], name: str) -> _Record | None:
        value = self.get(name)
        return None if value is None else record.read(value, self.path(name))

    def log_path(self, stage: str, number: int) -> Path:
        """The local path to which the log of one try is written."""
        return self.store.local_path(self.path(f"logs/{stage}-t{number}.log"))

    def log(self, stage: str, number: int) -> Path | None:
        """The log of one try; on another machine than the stage's only after the try has ended."""
        return self.store.fetch(self.path(f"logs/{stage}-t{number}.log"))

    # -- opening and closing --------------------------------------------------------------
    def record(self, plan: Plan, request: Request) -> None:
        """Open the attempt with a plan and a request; one that is open takes the plan's placement."""
        document = plan.model_dump(mode="json")
        self.store.put_json(f"runs/{self.run_id}/plan.json", document)
        if self.outcome is None:
            self.put("plan.json", document, create_once=False)
        self.put("request.json", request.to_json())

    def close(self, outcome: Outcome) -> bool:
        """Close the attempt. False if it is closed already."""
        return self.put("outcome.json", outcome.to_json())

    @property
    def plan(self) -> Plan:
        """The plan with this attempt's placement."""
        return read_plan(self.store, self.run_id, self.number)

    @property
    def request(self) -> Request:
        return self._read(Request, "request.json") or Request()

    @property
    def outcome(self) -> Outcome | None:
        return self._read(Outcome, "outcome.json")

    @property
    def target(self) -> str:
        """`local` or `cluster`: where the attempt is carried out."""
        return self.request.target

    # -- heartbeats -----------------------------------------------------------------------
    def heartbeat(self, stage: str) -> Heartbeat | None:
        """The newest heartbeat of a stage."""
        return self._read(Heartbeat, f"heartbeats/{stage}.json")

    def put_heartbeat(self, heartbeat: Heartbeat) -> None:
        self.put(f"heartbeats/{heartbeat.stage}.json", heartbeat.to_json(), create_once=False)

    @property
    def conductor(self) -> ConductorHeartbeat:
        """The newest heartbeat of the attempt's conductor in a cluster."""
        return self._read(ConductorHeartbeat, "conductor.json") or ConductorHeartbeat()

    def put_conductor_heartbeat(
        self, notes: dict[str, Note], measured: dict[str, MeasuredTry] | None = None, *, left: bool = False
    ) -> None:
        """Store that the conductor in a cluster lives, or has exited (`left`)."""
        heartbeat = ConductorHeartbeat(
            at=time.time(),
            notes={stage: note.what for stage, note in notes.items()},
            next_steps={stage: note.next_step for stage, note in notes.items() if note.next_step},
            measured=measured or {},
            left=left,
        )
        self.put("conductor.json", heartbeat.to_json(), create_once=False)

    def notes(self) -> dict[str, Note]:
        """By stage, why it makes no progress according to the newest heartbeat of the conductor."""
        newest = self.conductor
        return {
            stage: Note(what=what, next_step=newest.next_steps.get(stage, ""))
            for stage, what in newest.notes.items()
        }

    @property
    def has_live_conductor(self) -> bool:
        """Whether a conductor lives: of a local run by its lease, in a cluster by its heartbeat."""
        if self.target == "local":
            return conductor_of(self.store, self.run_id) is not None
        newest = self.conductor
        # Between submit and the first heartbeat, its pod is about to start.
        seen_at = newest.at or self.request.opened_at
        return not newest.left and time.time() - seen_at < _CONDUCTOR_LOST_S

    @property
    def conductor_exited(self) -> bool:
        """Whether the conductor in a cluster has exited in good order: none of its stages runs on."""
        return self.conductor.left

    @property
    def conductor_seen_recently(self) -> bool:
        """Whether the conductor in a cluster has written a heartbeat within three intervals."""
        return time.time() - self.conductor.at < 3 * CONDUCTOR_HEARTBEAT_INTERVAL_S

    # -- money ----------------------------------------------------------------------------
    def spending(self, stage: str) -> Spending | None:
        """What the newest process of a hosted stage reports to have spent."""
        return self._read(Spending, f"spending/{stage}.json")

    def put_spending(self, stage: str, spending: Spending) -> None:
        self.put(f"spending/{stage}.json", spending.to_json(), create_once=False)

    # -- tries ----------------------------------------------------------------------------
    def tries(self) -> list[Try]:
        """Every try of the attempt, by stage and number."""
        found = []
        for name in self.store.list(self.path("tries")):
            if match := _TRY.match(name):
                start = self._read(TryStart, f"tries/{name}") or TryStart()
                end = self._read(TryEnd, f"ends/{name}")
                found.append(Try(match["stage"], int(match["number"]), start.started_at, end))
        return sorted(found, key=lambda t: (t.stage, t.number))

    def begin_try(self, stage: str, number: int, started_at: float) -> None:
        self.put(f"tries/{stage}-t{number}.json", TryStart(started_at=started_at).to_json())

    def end_try(self, stage: str, number: int, end: TryEnd) -> None:
        self.put(f"ends/{stage}-t{number}.json", end.to_json())


@dataclass
class RunView:
    """The state of a run and its stages, read once."""

    store: Store
    plan: Plan
    attempt: Attempt
    stages: list[StageStatus] = field(default_factory=list)

    @property
    def run_id(self) -> str:
        return self.plan.run_id

    @property
    def outcome(self) -> Outcome | None:
        return self.attempt.outcome

    @property
    def verdict(self) -> dict[str, Any] | None:
        value = self.attempt.get("verdict.json")
        return value if isinstance(value, dict) else None


def attempts(store: Store, run_id: str) -> list[int]:
    """Numbers of the attempts at a run, in order."""
    return sorted(int(name) for name in store.list(f"runs/{run_id}/attempts") if name.isdigit())


def run_ids(store: Store) -> list[str]:
    """The ids of all runs in the store."""
    return [name for name in store.list("runs") if is_run_id(name)]


def find(store: Store, run: str) -> str:
    """The run id for `run`, an id or a unique prefix of one. Raises Failure(NOT_FOUND)."""
    matches = [run_id for run_id in run_ids(store) if run_id == run or run_id.startswith(run)]
    if run in matches:
        return run
    if len(matches) == 1:
        return matches[0]
    what = f"no run '{run}'" if not matches else f"'{run}' could be {', '.join(matches)}"
    raise Failure(Reason.NOT_FOUND, what, where=store.address)


def ledger_entries(store: Store, run_id: str, *, after: int = 0) -> list[LedgerEntry]:
    """The entries of the run's ledger with numbers above `after`, in order."""
    folder = f"runs/{run_id}/ledger"
    numbers = sorted(int(name[:6]) for name in store.list(folder) if _LEDGER_ENTRY.match(name))
    found = []
    for path in (f"{folder}/{number:06d}.json" for number in numbers if number > after):
        found.append(LedgerEntry.read(store.get_json(path), path))
    return found


def append_ledger_entry(store: Store, run_id: str, entry: LedgerEntry) -> bool:
    """Write an entry. False if there is one with its number already."""
    return store.put_json(f"runs/{run_id}/ledger/{entry.number:06d}.json", entry.to_json())


def stage_meta(store: Store, stage: Stage) -> StageMeta | None:
    """What a committed stage measured; None if it is not committed."""
    prefix = f"stages/{stage.key}"
    if not store.exists(prefix):
        return None
    return StageMeta.read(store.open(prefix).manifest.meta, prefix)


def conductor_of(store: Store, run_id: str) -> LeaseHolder | None:
    """The live process, on any machine, that conducts an attempt at this run; None if there is none."""
    return holder_of(store, run_lease(run_id))


def read_plan(store: Store, run_id: str, number: int | None = None) -> Plan:
    """The run's plan, with the placement of attempt `number`.

    Raises Failure(NOT_FOUND) if the store has no such run.
    """
    path = Attempt(store, run_id, number).path("plan.json") if number else ""
    value = store.get_json(path) if path else None
    if value is None:
        path = f"runs/{run_id}/plan.json"
        value = store.get_json(path)
    if value is None:
        raise Failure(Reason.NOT_FOUND, f"no run '{run_id}'", where=store.address)
    return parse(encode(value), f"{store.address}: {path}")


def view(store: Store, run_id: str, number: int | None = None) -> RunView:
    """The state of the run's newest attempt, or of attempt `number`."""
    known = attempts(store, run_id)
    plan = read_plan(store, run_id, number or (known[-1] if known else 1))
    if number is not None and number not in known:
        raise Failure(Reason.NOT_FOUND, f"no attempt {number}; there are {known}", where=run_id)
    attempt = Attempt(store, run_id, number or (known[-1] if known else 1))
    result = RunView(store, plan, attempt)
    tries, outcome = attempt.tries(), attempt.outcome
    alive = outcome is None and attempt.has_live_conductor
    notes = attempt.notes() if alive else {}
    ends = outcome.stages if outcome else {}
    states: dict[str, StageStatus] = {}
    for stage in plan.stages:
        own = tuple(t for t in tries if t.stage == stage.name)
        states[stage.name] = replace(
            _status(store, attempt, stage, own, alive, states, ends.get(stage.name)),
            note=notes.get(stage.name),
        )
    result.stages = list(states.values())
    return result


def _status(
    store: Store,
    attempt: Attempt,
    stage: Stage,
    tries: tuple[Try, ...],
    alive: bool,
    earlier: dict[str, StageStatus],
    closed_as: StageOutcome | None,
) -> StageStatus:
    """`closed_as` is the stage's end in a closed attempt; a stage can fail without a try (over the budget)."""
    heartbeat = attempt.heartbeat(stage.name)
    if meta := stage_meta(store, stage):
        reused = not any(t.reason in (None, Reason.SUCCEEDED) for t in tries)
        return StageStatus(stage, "finished", tries, heartbeat, seconds=meta.seconds, reused=reused)
    if tries and tries[-1].end is None:
        return StageStatus(stage, "running" if alive else "stopped", tries, heartbeat)
    if closed_as and closed_as.failure:
        return StageStatus(stage, "failed", tries, heartbeat, failure=closed_as.failure)
    for needed in stage.needs.values():
        if earlier[needed].state in ("failed", "blocked"):
            culprit = earlier[needed].blocked_by or needed
            return StageStatus(stage, "blocked", tries, heartbeat, blocked_by=culprit)
    end = tries[-1].end if tries else None
    # A stage that ended because the attempt was cancelled has not failed.
    if end and end.final and end.reason is not Reason.CANCELLED:
        return StageStatus(stage, "failed", tries, heartbeat, failure=end.failure)
    return StageStatus(stage, "waiting" if alive else "stopped", tries, heartbeat)
