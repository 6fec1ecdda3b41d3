"""The end of an attempt: receipt, verdict and report are written first, `outcome.json` last."""

from __future__ import annotations

import time

from launcher.costs import receipt
from launcher.outcome import Failure, Reason
from launcher.runs import report_page, verdict
from launcher.spec.plan import Plan
from launcher.store import Store
from launcher.store.records import Outcome
from launcher.store.runs import Attempt


def close(plan: Plan, store: Store, attempt: Attempt, outcome: Outcome) -> None:
    """Write receipt, verdict and report, then `outcome`: a reader that finds it finds the others."""
    paid = receipt.build(plan, store, attempt)
    attempt.put("receipt.json", paid.to_json(), create_once=False)
    if outcome.succeeded:
        document = verdict.build(plan, store, paid)
        attempt.put("verdict.json", document, create_once=False)
        report = store.local_path(attempt.path("report.md"))
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(report_page.render(document), encoding="utf-8")
        store.publish(attempt.path("report.md"))
    attempt.close(outcome)


def write_receipt(plan: Plan, store: Store, attempt: Attempt) -> None:
    """The receipt of a cancelled attempt: what was spent until it ended."""
    attempt.put("receipt.json", receipt.build(plan, store, attempt).to_json())


def close_failed(attempt: Attempt, failure: Failure) -> None:
    """Close an attempt whose conductor itself failed, so that nothing waits for it or restarts it."""
    attempt.close(_failed(failure))


def cancel(attempt: Attempt) -> bool:
    """Close the attempt as cancelled; its conductor then stops the stages. False if it was closed before."""
    failure = Failure(Reason.CANCELLED, "cancelled on request", where=attempt.run_id)
    return attempt.close(_failed(failure))


def _failed(failure: Failure) -> Outcome:
    return Outcome(reason=failure.reason, failure=failure, ended_at=time.time())
