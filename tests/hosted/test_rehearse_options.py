"""`launcher rehearse`: what is wrong with its options is listed at once, each with the field it is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.rehearsal.command import settings
from launcher.outcome import Failure, Reason


def refused(tmp_path: Path, model: str, recipe: str) -> Failure:
    with pytest.raises(Failure) as caught:
        settings(models=(model,), state=tmp_path / "state", recipe=recipe)
    assert caught.value.reason is Reason.USAGE
    assert not (tmp_path / "state").exists()
    return caught.value


def test_every_invalid_field_is_listed(tmp_path: Path) -> None:
    recipe = '{"learning_rte": 1, "threads": 0, "lora": {"rank": 4}}'
    failure = refused(tmp_path, "x=absent", recipe)
    found = [problem for problem in failure.problems if problem.startswith("--recipe: ")]
    assert sorted(found) == [
        "--recipe: learning_rte: no such key",
        "--recipe: lora.rank: no such key",
        "--recipe: threads: Input should be greater than or equal to 1 (got 0)",
    ]
    assert any(problem.startswith("--model x=absent: ") for problem in failure.problems)
    assert failure.next_step == "correct what is listed; launcher rehearse --help"


@pytest.mark.parametrize("text", ["learning_rate=1", "[1]", ""])
def test_recipe_that_is_not_an_object_is_one_problem(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    failure = refused(tmp_path, f"x={tmp_path}", text)
    [problem] = failure.problems
    assert problem.startswith("--recipe: ")
    assert "Recipe" not in problem
