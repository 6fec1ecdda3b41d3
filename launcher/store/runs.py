"""What the store says of a run: its plan, its attempts, every stage's tries, heartbeats and end.

The one place that knows the names below `runs/<run id>/`. Nothing here decides anything:
the conductor does, from the same facts.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from launcher.outcome import Failure, Reason
from launcher.spec.plan import Plan, Stage, parse
from launcher.store import Store, encode
from launcher.store.records import Note

State = Literal["waiting", "running", "finished", "failed", "blocked", "stopped"]

#: In a cluster a conductor says this often that it lives.
BEAT_INTERVAL_S = 15.0
#: A conductor that has said nothing for so long is taken for lost.
_BEAT_LOST_S = 120.0

_RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,15}-[0-9a-f]{8}")
_TRY = re.compile(r"^(?P<stage>.+)-t(?P<number>\d+)\.json$")


@dataclass(frozen=True)
class Try:
    """One start of one stage. Without an end it is running, or its conductor was lost."""

    stage: str
    number: int
    started_at: float
    end: dict[str, Any] | None

    @property
    def reason(self) -> Reason | None:
        return Reason(self.end["reason"]) if self.end else None


@dataclass(frozen=True)
class StageStatus:
    """Where one stage stands."""

    stage: Stage
    state: State
    tries: tuple[Try, ...]
    heartbeat: dict[str, Any] | None
    failure: Failure | None = None
    blocked_by: str | None = None
    seconds: float | None = None
    reused: bool = False
    #: Why it does not get on, where its conductor knows ("0/1 nodes are available: …").
    note: Note | None = None


@dataclass
class Attempt:
    """The files of one attempt at a run."""

    store: Store
    run_id: str
    number: int

    def path(self, name: str) -> str:
        return f"runs/{self.run_id}/attempts/{self.number}/{name}"

    def get(self, name: str) -> Any:
        return self.store.get_json(self.path(name))

    def put(self, name: str, value: Any, *, create_once: bool = True) -> bool:
        return self.store.put_json(self.path(name), value, create_once=create_once)

    def log_path(self, stage: str, number: int) -> Path:
        """Where the log of one try is written, on the machine that carries it out."""
        return self.store.local_path(self.path(f"logs/{stage}-t{number}.log"))

    def log(self, stage: str, number: int) -> Path | None:
        """The log of one try, wherever it was written; from another machine only once the try has ended."""
        return self.store.fetch(self.path(f"logs/{stage}-t{number}.log"))

    @property
    def outcome(self) -> dict[str, Any] | None:
        value = self.get("outcome.json")
        return value if isinstance(value, dict) else None

    def record(self, plan: Plan, request: dict[str, Any]) -> None:
        """Open the attempt with a plan and what is asked besides; one that is open takes another placement."""
        document = plan.model_dump(mode="json")
        self.store.put_json(f"runs/{self.run_id}/plan.json", document)
        if self.outcome is None:
            self.put("plan.json", document, create_once=False)
        self.put("request.json", request)

    @property
    def plan(self) -> Plan:
        """The plan with this attempt's placement."""
        return read_plan(self.store, self.run_id, self.number)

    @property
    def target(self) -> str:
        """`local` or `cluster`: where the attempt is carried out."""
        return str((self.get("request.json") or {}).get("target", "local"))

    def beat(
        self, notes: dict[str, Note], measured: dict[str, Any] | None = None, *, left: bool = False
    ) -> None:
        """A conductor in a cluster says that it lives, or that it has `left`, and why which stage does not get on.

        `measured` is for the next conductor: what it knows of pods that may be gone by then.
        """
        said = {"at": time.time(), "measured": measured or {}, "left": left}
        said |= {"notes": {stage: note.what for stage, note in notes.items()}}
        said |= {"next_steps": {stage: note.next_step for stage, note in notes.items() if note.next_step}}
        self.put("conductor.json", said, create_once=False)

    def measured(self) -> dict[str, Any]:
        """What the conductor last said that it measured of the pods of tries that run, by stage."""
        found = (self.get("conductor.json") or {}).get("measured", {})
        return found if isinstance(found, dict) else {}

    def notes(self) -> dict[str, Note]:
        """What the conductor last said of stages that do not get on, by name."""
        beat = self.get("conductor.json") or {}
        steps = beat.get("next_steps", {})
        return {stage: Note(what, steps.get(stage, "")) for stage, what in beat.get("notes", {}).items()}

    @property
    def conducted(self) -> bool:
        """Whether a conductor lives: on this machine by its lock, in a cluster by what it last said."""
        if self.target == "local":
            return conductor_alive(self.store, self.run_id)
        beat = self.get("conductor.json") or {}
        # Between submit and the first beat, its pod is about to start.
        seen_at = float(beat.get("at") or self.get("request.json").get("opened_at", 0.0))
        return not self.left and time.time() - seen_at < _BEAT_LOST_S

    @property
    def left(self) -> bool:
        """Whether its conductor in a cluster has ended in good order: nothing of its stages runs on."""
        return bool((self.get("conductor.json") or {}).get("left"))

    @property
    def heard(self) -> bool:
        """Whether its conductor in a cluster has said a moment ago that it lives."""
        beat = self.get("conductor.json") or {}
        return time.time() - float(beat.get("at", 0.0)) < 3 * BEAT_INTERVAL_S

    def tries(self) -> list[Try]:
        """Every try of the attempt, by stage and number."""
        found = []
        for name in self.store.list(self.path("tries")):
            if match := _TRY.match(name):
                start = self.get(f"tries/{name}")
                stage, number = match["stage"], int(match["number"])
                found.append(Try(stage, number, float(start["started_at"]), self.get(f"ends/{name}")))
        return sorted(found, key=lambda t: (t.stage, t.number))

    def begin_try(self, stage: str, number: int, started_at: float) -> None:
        self.put(f"tries/{stage}-t{number}.json", {"started_at": started_at})

    def end_try(self, stage: str, number: int, end: dict[str, Any]) -> None:
        self.put(f"ends/{stage}-t{number}.json", end)


@dataclass
class RunView:
    """A run as it is in the store now."""

    store: Store
    plan: Plan
    attempt: Attempt
    stages: list[StageStatus] = field(default_factory=list)

    @property
    def run_id(self) -> str:
        return self.plan.run_id

    @property
    def outcome(self) -> dict[str, Any] | None:
        return self.attempt.outcome

    @property
    def verdict(self) -> dict[str, Any] | None:
        value = self.attempt.get("verdict.json")
        return value if isinstance(value, dict) else None


def attempts(store: Store, run_id: str) -> list[int]:
    """Numbers of the attempts at a run, in order."""
    return sorted(int(name) for name in store.list(f"runs/{run_id}/attempts") if name.isdigit())


def run_ids(store: Store) -> list[str]:
    return [name for name in store.list("runs") if _RUN_ID.fullmatch(name)]


def find(store: Store, run: str) -> str:
    """The run id that `run` names: whole, or a prefix that only one run has. Raises Failure(NOT_FOUND)."""
    matches = [run_id for run_id in run_ids(store) if run_id == run or run_id.startswith(run)]
    if run in matches:
        return run
    if len(matches) == 1:
        return matches[0]
    what = f"no run '{run}'" if not matches else f"'{run}' could be {', '.join(matches)}"
    raise Failure(Reason.NOT_FOUND, what, where=store.address)


def lock_path(run_id: str) -> str:
    """The lock that the run's conductor holds while it lives."""
    return f"runs/{run_id}/conductor.lock"


def conductor_alive(store: Store, run_id: str) -> bool:
    """Whether a conductor of this run lives on this machine."""
    return store.locked(lock_path(run_id))


def conducted_attempt(store: Store, run_id: str) -> int | None:
    """The attempt that the run's living conductor carries on; None where no conductor lives.

    0 for one that has only just started and has not said yet.
    """
    if not conductor_alive(store, run_id):
        return None
    text = store.local_path(lock_path(run_id)).read_text(encoding="ascii", errors="replace")
    return int(text) if text.isdigit() else 0


def read_plan(store: Store, run_id: str, number: int | None = None) -> Plan:
    """The run's plan, with the placement that attempt `number` was opened with.

    Raises Failure(NOT_FOUND) where the run has no plan in this store.
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
    """The run's newest attempt (or attempt `number`), stage by stage."""
    known = attempts(store, run_id)
    plan = read_plan(store, run_id, number or (known[-1] if known else 1))
    if number is not None and number not in known:
        raise Failure(Reason.NOT_FOUND, f"no attempt {number}; there are {known}", where=run_id)
    attempt = Attempt(store, run_id, number or (known[-1] if known else 1))
    result = RunView(store, plan, attempt)
    tries = attempt.tries()
    alive = attempt.outcome is None and attempt.conducted
    notes = attempt.notes() if alive else {}
    ends = (attempt.outcome or {}).get("stages") or {}
    states: dict[str, StageStatus] = {}
    for stage in plan.stages:
        own = tuple(t for t in tries if t.stage == stage.name)
        states[stage.name] = replace(
            _status(store, attempt, stage, own, alive, states, ends.get(stage.name) or {}),
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
    closed_as: dict[str, Any],
) -> StageStatus:
    """`closed_as` is what the closed attempt says of the stage; a stage may fail without a try (no money is left)."""
    heartbeat = attempt.get(f"heartbeats/{stage.name}.json")
    if store.exists(f"stages/{stage.key}"):
        meta = store.open(f"stages/{stage.key}").manifest.meta
        reused = not any(t.reason in (None, Reason.SUCCEEDED) for t in tries)
        return StageStatus(stage, "finished", tries, heartbeat, seconds=meta.get("seconds"), reused=reused)
    if tries and tries[-1].end is None:
        return StageStatus(stage, "running" if alive else "stopped", tries, heartbeat)
    if closed_as.get("failure"):
        closing = Failure.from_json(closed_as["failure"])
        return StageStatus(stage, "failed", tries, heartbeat, failure=closing)
    for needed in stage.needs.values():
        if earlier[needed].state in ("failed", "blocked"):
            culprit = earlier[needed].blocked_by or needed
            return StageStatus(stage, "blocked", tries, heartbeat, blocked_by=culprit)
    if tries and tries[-1].end is not None:
        end = tries[-1].end
        failure = Failure.from_json(end["failure"]) if end.get("failure") else None
        # What ended because the attempt was cancelled has not failed.
        if end.get("final") and end["reason"] != Reason.CANCELLED.value:
            return StageStatus(stage, "failed", tries, heartbeat, failure=failure)
    return StageStatus(stage, "waiting" if alive else "stopped", tries, heartbeat)
