"""The scorers of conversations."""

from pathlib import Path

import pytest

from jobs.tasks.chat.prompt import make_row
from jobs.tasks.chat.scorer import BUILT_IN, score, scorers
from jobs.tasks.contract import ScoreContext
from launcher.outcome import Failure, Reason
from launcher.spec.tasks import built_in


@pytest.mark.parametrize(
    ("scorer", "answer", "gold", "right"),
    [
        ("exact", " yes\n", "yes", True),
        ("exact", "Yes", "yes", False),
        ("choice", "B", "B", True),
        ("choice", "(b)", "B", True),
        ("choice", "B. Because it is", "(B)", True),
        ("choice", "The answer is B.", "B", True),
        ("choice", "A good answer is: B", "B", True),
        ("choice", "C", "B", False),
        ("choice", "Because", "B", False),
        ("choice", "Clickbait.", "clickbait", True),
        ("choice", "clickbait\nIt promises too much.", "clickbait", True),
        ("choice", "not clickbait", "clickbait", False),
        ("number", "so 3 + 4 = 7 apples", "7", True),
        ("number", "1,234.50", "1234.5", True),
        ("number", "The total is $18.", "She sells 9 ... #### 18", True),
        ("number", "-2", "2", False),
        ("number", "none", "2", False),
        ("number", "7 or 8", "7", False),
        ("json", '{"b": 1, "a": [1, 2]}', '{"a":[1,2],"b":1}', True),
        ("json", '```json\n{"a": 1}\n```', '{"a": 1}', True),
        ("json", '{"a": [2, 1]}', '{"a": [1, 2]}', False),
        ("json", '{"a": true}', '{"a": 1}', False),
        ("json", "nothing", '{"a": 1}', False),
        ("json", "[" * 100_000, "[]", False),
    ],
)
def test_built_in(scorer: str, answer: str, gold: str, right: bool) -> None:
    assert BUILT_IN[scorer](answer, gold, {}) is right


def rows(gold: str = "yes"):  # type: ignore[no-untyped-def]
    return [
        make_row(
            "1", [{"role": "user", "content": "?"}, {"role": "assistant", "content": gold}], {"hint": "s"}
        )
    ]


def scoring(names: list[str], module: Path = Path()) -> ScoreContext:
    return ScoreContext(directory=Path, scorers=tuple(names), find_module=lambda _module: module)


def test_a_users_function_is_a_scorer(tmp_path: Path) -> None:
    # A file in the store has no suffix.
    (tmp_path / "0123abcd").write_text(
        "def near(answer, gold, row):\n    return answer.startswith(gold[0]) and row['hint'] == 's'\n"
    )
    context = scoring(["mine:near"], tmp_path / "0123abcd")
    (one,) = score(rows(), ["yellow"], context).rows
    assert one.scores == {"mine:near": True}


def test_a_scorer_that_fails_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("def f(answer, gold, row):\n    return 1 / 0\n")
    context = scoring(["m:f"], tmp_path / "m.py")
    with pytest.raises(Failure, match="ZeroDivisionError") as failure:
        score(rows(), ["x"], context)
    assert failure.value.reason is Reason.BAD_DATA
    assert "row 1" in failure.value.where


@pytest.mark.parametrize(
    ("source", "message"),
    [("def g(): pass", "no function 'f'"), ("1 +", "SyntaxError"), ("import nowhere_", "No module")],
)
def test_a_bad_file_is_one_message(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "m.py").write_text(source)
    with pytest.raises(Failure, match=message):
        scorers(["m:f"], lambda _module: tmp_path / "m.py")


def test_an_unknown_scorer_is_usage() -> None:
    with pytest.raises(Failure, match="no scorer 'bleu'") as failure:
        scorers(["bleu"], Path)
    assert failure.value.reason is Reason.USAGE


def test_a_wrong_answer_names_the_scorers_it_fails() -> None:
    (one,) = score(rows(), ["no"], scoring(["exact", "choice"])).rows
    assert one.reason == "wrong by exact, choice"


def test_built_in_scorers_are_those_of_the_task_facts() -> None:
    scorers_of_task = built_in("chat").scorers
    assert scorers_of_task is not None
    assert set(scorers_of_task.built_in) == set(BUILT_IN)
