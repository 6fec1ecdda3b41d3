"""Tuneyard's light side, and a small Python API that says the same as the command line.

    from launcher import load, make_plan, submit
    run = submit(load("sql"), target="local")
    run.wait()
    print(run.verdict["summary"])

Importing this package imports nothing heavy.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from launcher.spec.experiment import Experiment
    from launcher.spec.plan import Plan
    from launcher.store.runs import Attempt
    from launcher.targets.target import Target

__all__ = ["Run", "load", "make_plan", "submit"]


def load(source: str, **overrides: Any) -> Experiment:
    """An experiment by built-in name or file; keywords as in `launcher.spec.loading.load`."""
    from launcher.spec import loading

    return loading.load(source, **overrides)


def make_plan(experiment: Experiment, *, data: Path | None = None) -> Plan:
    """The plan of an experiment, names resolved now."""
    from launcher.resolve.resolver import resolve
    from launcher.spec.planner import plan

    resolution = resolve(experiment, data_directory=data)
    return plan(resolution.experiment, resolution.lock)


class Run:
    """A submitted run. `verdict` is None until it has succeeded."""

    def __init__(self, attempt: Attempt, place: Target) -> None:
        self._attempt = attempt
        self._place = place

    @property
    def id(self) -> str:
        return self._attempt.run_id

    @property
    def outcome(self) -> dict[str, Any] | None:
        return self._attempt.outcome

    @property
    def verdict(self) -> dict[str, Any] | None:
        value = self._attempt.get("verdict.json")
        return value if isinstance(value, dict) else None

    def wait(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Wait until the attempt is closed and return its outcome. Raises TimeoutError, or Failure where it failed."""
        from launcher.outcome import Failure, Reason

        supervision = self._place.supervise(self._attempt)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while (outcome := self.outcome) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"{self.id} is still running")
            supervision.look()
            time.sleep(0.2)
        if outcome["reason"] != Reason.SUCCEEDED.value:
            raise Failure.from_json(outcome["failure"])
        return outcome


def submit(
    experiment: Experiment,
    *,
    target: str = "local",
    data: Path | None = None,
    store: str | None = None,
    site: Path | None = None,
) -> Run:
    """Start a run, or join it where it is under way; returns at once. `site` is the path of a site file."""
    from launcher.resolve.resolver import resolve
    from launcher.runs import submission
    from launcher.spec import site as sites
    from launcher.spec.planner import plan
    from launcher.store.selection import open_named_store
    from launcher.targets import target as targets

    resolution = resolve(experiment, data_directory=data)
    made = plan(resolution.experiment, resolution.lock)
    opened = open_named_store(store, site, writable=True)
    facts = sites.load(site)
    place = targets.target(target, facts, say=lambda text: print(text, file=sys.stderr))
    place.check(made, opened, submission.newest_attempt(opened, made.run_id).number, experiment.budget_usd)
    submission.push_inputs(made, opened, resolution.locations)
    attempt = submission.open_attempt(
        made, opened, target=target, site=facts, budget_usd=experiment.budget_usd
    )
    place.start(attempt)
    return Run(attempt, place)
