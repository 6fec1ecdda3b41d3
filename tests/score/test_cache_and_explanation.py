"""The score cache, and `--explain` for one row."""

import json
from pathlib import Path

import pytest
from small_sql_data import QUESTIONS, SqlData

from jobs.measures.cache import Cache, key, secret_path
from jobs.score.explanation import find_row
from jobs.tasks.sql.execution import worker_pool
from jobs.tasks.sql.judging import score
from launcher.cli.main import main
from launcher.outcome import Failure, Reason


def test_cache_returns_stored_values(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "deep" / "score.sqlite")
    cache.put({key("a"): {"x": [1, None, "é"]}, key("b"): 2})
    assert cache.get([key("a"), key("c"), key("a")]) == {key("a"): {"x": [1, None, "é"]}}
    cache.close()
    again = Cache(tmp_path / "deep" / "score.sqlite")
    assert again.get([key("b")]) == {key("b"): 2}
    again.close()


def test_cached_scoring_starts_no_worker(
    sql_data: SqlData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [sql for _, sql in QUESTIONS[:-1]] + ["SELECT 1"]

    def scored() -> object:
        cache = Cache(tmp_path / "score.sqlite")
        try:
            return score(sql_data.rows, answers, sql_data.directory, workers=1, cache=cache)
        finally:
            cache.close()

    first = scored()
    monkeypatch.setattr(worker_pool, "_Worker", None)
    assert scored() == first


def test_cache_key_depends_on_database_content(sql_data: SqlData, tmp_path: Path) -> None:
    from jobs.tasks.sql.judging import prepare_jobs, prepare_key

    before = prepare_key(prepare_jobs(sql_data.rows, sql_data.directory)[0])
    other = tmp_path / "other"
    sql_data.directory.rename(other)
    content = bytearray((other / "database" / "music" / "music.sqlite").read_bytes())
    content[-1] ^= 1
    (other / "database" / "music" / "music.sqlite").write_bytes(content)
    assert prepare_key(prepare_jobs(sql_data.rows, other)[0]) != before


@pytest.mark.parametrize("damage", [b"", b"not a database", b"SQLite format 3\0" + b"x" * 5000])
def test_damaged_cache_is_recreated_or_ignored(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "score.sqlite"
    path.write_bytes(damage)
    cache = Cache(path)
    cache.put({key(1): 1})
    assert cache.get([key(1)]) in ({key(1): 1}, {})
    cache.close()


def test_unwritable_cache_is_ignored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file" / "score.sqlite")
    cache.put({key(1): 1})
    assert cache.get([key(1)]) == {}
    assert "scores are not cached" in capsys.readouterr().err


@pytest.fixture
def explained(sql_data: SqlData, tmp_path: Path, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    answers = [sql for _, sql in QUESTIONS]
    answers[2] = "SELECT name, country FROM singer WHERE country != 'France'"
    answers[3] = "SELECT name FROM singer ORDER"
    answers[4] = "SELECT name FROM singer ORDER BY name"
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps({"answer": answer}) + "\n" for answer in answers))

    def explain(row: str, *more: str) -> str:
        base = ["sql", "--data", str(sql_data.directory), "--split", "train", "--predictions", str(file)]
        assert main(["score", *base, "--explain", row, *more]) == 0
        return capsys.readouterr().out

    return explain


def test_explanation_is_reduced_to_one_row(explained) -> None:  # type: ignore[no-untyped-def]
    proof = json.loads(explained("3", "-o", "json"))["proof"]
    assert sum(table["of"] for table in proof["tables"]) == 1
    assert proof["gold"]["rows"] != proof["answer"]["rows"]


def test_explanation_as_text(explained) -> None:  # type: ignore[no-untyped-def]
    text = explained("train-00005")
    for part in (
        "question  The oldest singer.",
        "wrong rows",
        "singer (",
        "the gold returns",
        "the answer returns",
    ):
        assert part in text


def test_explanation_shows_the_error_of_an_answer(explained) -> None:  # type: ignore[no-untyped-def]
    assert "the answer returns: syntax error" in explained("4")


def test_explanation_of_a_right_answer(explained) -> None:  # type: ignore[no-untyped-def]
    assert "nothing tells it from the gold" in explained("1")


def test_unknown_row_is_a_usage_error(sql_data: SqlData) -> None:
    with pytest.raises(Failure, match="there is no row '99'") as failure:
        find_row(sql_data.rows, "99")
    assert failure.value.reason is Reason.USAGE


def test_entries_of_another_user_are_ignored_counted_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "theirs"))
    theirs = Cache(tmp_path / "score.sqlite")
    theirs.put({key(1): "poison"})
    theirs.close()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "mine"))
    mine = Cache(tmp_path / "score.sqlite")
    assert mine.get([key(1)]) == {}
    mine.put({key(1): "computed"})
    assert mine.get([key(1)]) == {key(1): "computed"}
    mine.close()
    assert "1 cached scores were not written by this user" in capsys.readouterr().err


def test_a_secret_that_others_may_read_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    Cache(tmp_path / "score.sqlite").close()
    secret = secret_path()
    assert secret.stat().st_mode & 0o777 == 0o600
    secret.chmod(0o644)
    cache = Cache(tmp_path / "score.sqlite")
    cache.put({key(1): 1})
    assert cache.get([key(1)]) == {}
    assert "must belong to this user" in capsys.readouterr().err
