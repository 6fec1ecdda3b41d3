"""A plan as one attempt at a run: which attempt it is, and how it is opened in the store."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.costs import budget
from launcher.costs.token_counts import count_tokens
from launcher.outcome import Failure, Reason
from launcher.spec.placement import placed
from launcher.spec.plan import Plan
from launcher.spec.site import Site
from launcher.store import Store
from launcher.store.records import Request
from launcher.store.runs import Attempt, attempts, read_plan


@dataclass(frozen=True)
class Submission:
    """An attempt at a run that `open` writes to the store, or has written before."""

    attempt: Attempt
    plan: Plan
    target: str
    site: Site
    budget_usd: float | None
    #: By digest, the outside files of the plan to copy to the store; None: the store has them from an earlier attempt.
    locations: Mapping[str, Path] | None = None

    def open(self) -> Attempt:
        """Copy the inputs to the store and open the attempt there; it may run twice at once."""
        if self.locations is not None:
            push_inputs(self.plan, self.attempt.store, self.locations)
        request = Request.of(self.site, self.target, self.budget_usd)
        self.attempt.record(self.plan, request.model_copy(update={"opened_at": time.time()}))
        return self.attempt


def newest_attempt(store: Store, run_id: str) -> Attempt:
    """The newest attempt; the first one if there is none yet."""
    known = attempts(store, run_id)
    return Attempt(store, run_id, known[-1] if known else 1)


def continue_run(
    plan: Plan,
    store: Store,
    *,
    target: str,
    site: Site,
    budget_usd: float | None = None,
    locations: Mapping[str, Path] | None = None,
) -> Submission:
    """The newest attempt at the plan's run, open or ended; the first one for a new run.

    The cap of an attempt that was opened before stays, whatever `budget_usd` is.
    """
    attempt = newest_attempt(store, plan.run_id)
    if attempt.get("request.json") is not None:
        budget_usd = budget.budget_usd(attempt)
    return Submission(attempt, plan, target, site, budget_usd, locations)


def retry_run(
    store: Store,
    run_id: str,
    *,
    site: Site,
    target: str | None = None,
    budget_usd: float | None = None,
    sets: tuple[str, ...] = (),
) -> Submission:
    """Another attempt at a run whose last attempt has failed or was cancelled.

    `target` and `budget_usd` default to the last attempt's; what earlier attempts spent counts against the cap.
    `sets` give stages another placement (see `launcher.spec.placement`).
    Raises Failure(USAGE) if the last attempt is open or has succeeded.
    """
    last = newest_attempt(store, run_id)
    outcome = last.outcome
    if outcome is None:
        raise Failure(
            Reason.USAGE,
            f"attempt {last.number} is still open",
            where=run_id,
            next_step=f"launcher status {run_id}",
        )
    if outcome.succeeded:
        raise Failure(
            Reason.USAGE, "the run has succeeded", where=run_id, next_step=f"launcher report {run_id}"
        )
    return Submission(
        attempt=Attempt(store, run_id, last.number + 1),
        plan=placed(read_plan(store, run_id, last.number), sets),
        target=target or last.target,
        site=site,
        budget_usd=budget.budget_usd(last) if budget_usd is None else budget_usd,
    )


def push_inputs(plan: Plan, store: Store, locations: Mapping[str, Path]) -> None:
    """Copy every outside file of the plan that the store lacks; `locations` are paths by digest.

    Raises Failure(MISSING_INPUT) listing the files found nowhere, Failure(BAD_DATA) for data that `prepare`
    would refuse.
    """
    # Only before the first attempt: the digest names the content, which has not changed since.
    if plan.stage("prepare").inputs and not attempts(store, plan.run_id):
        count_tokens(plan, locations)
    wanted = {sha256: name for stage in plan.stages for name, sha256 in stage.inputs.items()}
    missing = []
    for sha256, name in sorted(wanted.items(), key=lambda item: item[1]):
        if store.has_input(sha256):
            continue
        source = locations.get(sha256)
        if source is None:
            missing.append(f"{name} (sha256 {sha256[:12]}…)")
        elif store.put_input(source) != sha256:
            raise Failure(Reason.BAD_DATA, "the file changed after it was locked", where=str(source))
    if missing:
        raise Failure(
            Reason.MISSING_INPUT,
            "outside files are neither here nor in the store",
            where=plan.run_id,
            problems=tuple(missing),
            next_step="name their directory: --data DIR",
        )
