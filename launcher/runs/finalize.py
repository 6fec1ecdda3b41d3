"""The end of an attempt: its receipt, verdict and report, and last the outcome that closes it."""

from __future__ import annotations

import time
from typing import Any

from launcher.costs import receipt
from launcher.outcome import Failure, Reason
from launcher.runs import verdict
from launcher.spec.plan import Plan
from launcher.store import Store
from launcher.store.runs import Attempt


def close(plan: Plan, store: Store, attempt: Attempt, outcome: dict[str, Any]) -> None:
    """Write receipt, verdict and report, and last `outcome`: whoever sees it finds the others."""
    paid = receipt.build(plan, store, attempt)
    attempt.put("receipt.json", paid, create_once=False)
    if outcome["reason"] == Reason.SUCCEEDED.value:
        document = verdict.build(plan, store, paid)
        attempt.put("verdict.json", document, create_once=False)
        report = store.local_path(attempt.path("report.md"))
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(verdict.render(document), encoding="utf-8")
        store.publish(attempt.path("report.md"))
    attempt.put("outcome.json", outcome)


def settle(plan: Plan, store: Store, attempt: Attempt) -> None:
    """The account of an attempt that somebody else closed (cancelled): what was spent until then."""
    attempt.put("receipt.json", receipt.build(plan, store, attempt))


def close_broken(attempt: Attempt, failure: Failure) -> None:
    """Close an attempt whose conductor itself failed: nobody shall wait for it, or start it over and over."""
    attempt.put("outcome.json", _failed(failure))


def cancel(attempt: Attempt) -> bool:
    """Close the attempt as cancelled; its conductor sees that and stops the stages. False where it was closed."""
    failure = Failure(Reason.CANCELLED, "cancelled on request", where=attempt.run_id)
    return attempt.put("outcome.json", _failed(failure))


def _failed(failure: Failure) -> dict[str, Any]:
    return {
        "format": 1,
        "reason": failure.reason.value,
        "failure": failure.to_json(),
        "stages": {},
        "ended_at": time.time(),
    }
