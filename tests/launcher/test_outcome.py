"""One reason, one exit code, one decision about retrying; and messages that fit where they must."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.outcome import DISPOSITIONS, RETRY_BUDGET, Failure, Reason, Retry, from_exit_code

texts = st.one_of(st.text(max_size=3000), st.text(alphabet='ä漢😀\x00\ud800"\\', max_size=3000))
failures = st.builds(
    Failure,
    st.sampled_from(Reason),
    texts,
    where=texts,
    problems=st.lists(texts, max_size=40).map(tuple),
    next_step=texts,
)


def test_every_reason_has_a_disposition_and_an_exit_code_of_its_own() -> None:
    assert set(DISPOSITIONS) == set(Reason)
    codes = [disposition.exit_code for disposition in DISPOSITIONS.values()]
    assert len(set(codes)) == len(codes)
    assert all(0 <= code <= 255 for code in codes)


@pytest.mark.parametrize("reason", Reason)
def test_an_exit_code_maps_back_to_its_reason(reason: Reason) -> None:
    assert from_exit_code(DISPOSITIONS[reason].exit_code) is reason


@pytest.mark.parametrize(
    ("code", "reason"),
    [(-9, Reason.KILLED), (-11, Reason.KILLED), (-15, Reason.TERMINATED), (77, Reason.INTERNAL)],
)
def test_signals_and_unknown_codes_have_a_reason(code: int, reason: Reason) -> None:
    assert from_exit_code(code) is reason


def test_only_transient_reasons_are_retried() -> None:
    retried = {reason for reason in Reason if RETRY_BUDGET[DISPOSITIONS[reason].retry]}
    assert retried == {
        Reason.INTERNAL,
        Reason.STORE_FAILED,
        Reason.NETWORK,
        Reason.NO_HEARTBEAT,
        Reason.KILLED,
        Reason.TERMINATED,
    }
    assert set(RETRY_BUDGET) == set(Retry)


def test_every_failure_says_what_to_do_next() -> None:
    for reason in Reason:
        if reason is not Reason.SUCCEEDED:
            assert "\nnext: " in Failure(reason, "it broke").text()


def test_a_message_lists_every_problem_below_what_and_where() -> None:
    failure = Failure(
        Reason.BAD_DATA, "2 problems", where="train.csv", problems=("row 3", "row 5"), next_step="mend it"
    )
    assert failure.text() == "train.csv: 2 problems\n  row 3\n  row 5\nnext: mend it"


@pytest.mark.parametrize("reason", Reason)
def test_advice_about_a_run_can_be_copied_to_a_shell(reason: Reason) -> None:
    step = Failure(reason, "it broke").about("sql-12345678", "train-a-s1").next_step
    assert not re.search(r"\b[A-Z]{3,}\b", step)


def test_a_failure_round_trips_through_json() -> None:
    failure = Failure(Reason.NETWORK, "what", where="where", problems=("a", "b"), next_step="next")
    assert Failure.from_json(json.loads(json.dumps(failure.to_json()))).to_json() == failure.to_json()


@given(failures)
def test_a_termination_message_fits_kubernetes_limit_in_bytes(failure: Failure) -> None:
    message = failure.termination_message()
    assert len(message.encode()) < 4096
    read = Failure.from_json(json.loads(message))
    assert read.reason is failure.reason
    assert failure.what.startswith(read.what)


@given(failures)
def test_a_small_termination_message_is_complete(failure: Failure) -> None:
    if len(json.dumps(failure.to_json())) <= 4000:
        assert Failure.from_json(json.loads(failure.termination_message())).to_json() == failure.to_json()


def test_a_long_list_of_problems_says_how_many_were_left_out() -> None:
    failure = Failure(Reason.BAD_DATA, "bad rows", problems=tuple(f"row {n} " + "x" * 50 for n in range(200)))
    read = Failure.from_json(json.loads(failure.termination_message()))
    shown = len(read.problems) - 1
    assert 0 < shown < 200
    assert read.problems[-1] == f"… and {200 - shown} more"


def test_messages_contain_no_control_characters() -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J"
    failure = Failure(Reason.NETWORK, hostile, where=hostile, problems=(hostile,), next_step=hostile)
    assert not set(failure.text()) & {"\x1b", "\x07"}
    assert len(failure.text().splitlines()) == 3
