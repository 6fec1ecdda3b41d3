"""Output of an attempt that has failed: one error with the blocked stages and the next commands."""

from __future__ import annotations

import pytest

from launcher.cli.outcome import print_outcome
from launcher.outcome import Failure, Reason
from launcher.store import DirectoryStore
from launcher.store.records import Outcome
from launcher.store.runs import Attempt


def closed(reason: Reason, failure: Failure) -> Outcome:
    stages = {"prepare": {"state": "failed"}, "report": {"state": "blocked"}}
    return Outcome.model_validate(
        {"format": 1, "reason": reason, "failure": failure.to_json(), "stages": stages, "ended_at": 1.0}
    )


def test_a_failed_run_names_blocked_stages_and_the_next_commands(
    store: DirectoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    failure = Failure(Reason.BAD_DATA, "row 7", where="prepare", problems=("a\x1b[2J",), next_step="fix it")
    outcome = closed(Reason.BAD_DATA, failure)
    assert print_outcome(Attempt(store, "sql-1", 1), outcome, "text") == 11
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "error: sql-1 bad-data: prepare: row 7\n  a [2J\n  stages blocked by it: report\nnext: fix it\n"
        "      launcher why sql-1; launcher retry sql-1 once it is corrected\n"
    )


def test_a_cancelled_run_names_retry(store: DirectoryStore, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = closed(Reason.CANCELLED, Failure(Reason.CANCELLED, "cancelled by the user"))
    assert print_outcome(Attempt(store, "sql-1", 1), outcome, "json") == 25
    assert capsys.readouterr().err.endswith("\nnext: launcher retry sql-1\n")
