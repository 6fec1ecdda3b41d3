"""The stage `score`: its output files, reproducible byte for byte."""

import json
from pathlib import Path

import pytest
from small_sql_data import QUESTIONS, SqlData

from jobs.runtime.jsonl import write_jsonl
from jobs.stage import run_stage
from jobs.tasks.rows import Row, write_rows
from launcher.outcome import DISPOSITIONS, Reason
from launcher.spec.plan import Plan, Stage, stage_key
from launcher.spec.stages import VERSIONS, ScoreSettings
from launcher.store import DirectoryStore, open_store


def score_in_a_run(
    store: DirectoryStore,
    base: Path,
    task: str,
    rows: list[Row],
    answers: list[str],
    files: dict[str, str] | None = None,
    predicted_ids: list[str] | None = None,
) -> Path:
    """Commit rows and predictions as their stages would, run the stage, return its output."""
    (base / "data").mkdir(parents=True, exist_ok=True)
    write_rows(base / "data" / "test.jsonl", rows)
    ids = predicted_ids or [row.id for row in rows]
    predictions = [{"id": name, "answer": answer} for name, answer in zip(ids, answers, strict=True)]
    write_jsonl(base / "predictions" / "predictions.jsonl", predictions)
    scorers = tuple(name.removeprefix("scorers/").replace(".py", ":right") for name in files or {})
    settings = ScoreSettings(task=task, scorers=scorers).model_dump(mode="json")  # type: ignore[arg-type]
    keys = {"data": "d" * 64, "predictions": "e" * 64}
    stage = Stage(
        name="score-x", kind="score", version=VERSIONS["score"], inputs=files or {}, settings=settings,
        needs={"data": "prepare", "predictions": "predict-x"},
        key=stage_key("score", VERSIONS["score"], settings, files or {}, keys),
    )  # fmt: skip
    before = [
        Stage(name=name, kind=kind, version=1, key=key, needs={}, inputs={}, settings={})
        for name, kind, key in (
            ("prepare", "prepare", keys["data"]),
            ("predict-x", "predict", keys["predictions"]),
        )
    ]
    plan = Plan(run_id="x-00000000", experiment={}, lock={}, stages=(*before, stage))
    for name, key in keys.items():
        store.commit(f"stages/{key}", base / name, {})
    code = run_stage(plan, "score-x", store, 1)
    assert code == 0, code
    return store.open(f"stages/{stage.key}").directory()


def test_a_stage_refuses_a_plan_of_another_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = VERSIONS["score"] + 1
    stage = Stage(name="score-x", kind="score", version=other, key="a" * 64, needs={}, inputs={}, settings={})
    plan = Plan(run_id="x-00000000", experiment={}, lock={}, stages=(stage,))
    code = run_stage(plan, "score-x", DirectoryStore(tmp_path / "store"), 1)
    assert code == DISPOSITIONS[Reason.VERSION_MISMATCH].exit_code
    assert f"the plan wants score version {other}" in capsys.readouterr().err


def test_sql(sql_data: SqlData, tmp_path: Path) -> None:
    answers = [sql for _, sql in QUESTIONS]
    answers[0] = "SELECT 17"
    (tmp_path / "x" / "data").mkdir(parents=True)
    (sql_data.directory / "database").rename(tmp_path / "x" / "data" / "database")
    out = score_in_a_run(open_store(str(tmp_path / "store")), tmp_path / "x", "sql", sql_data.rows, answers)
    rows = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    summary = json.loads((out / "summary.json").read_text())
    assert [row["id"] for row in rows] == [row.id for row in sql_data.rows]
    assert [row["scores"]["strict"] for row in rows] == [False] + [True] * 7
    assert rows[0]["groups"]["database"] == "music"
    assert (summary["rows"], summary["valid_gold"], summary["primary"]) == (8, 8, "strict")
    assert summary["measures"]["strict"]["correct"] == 7


def test_the_same_answers_give_the_same_bytes(sql_data: SqlData, tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        out = score_in_a_run(
            open_store(str(tmp_path / name)),
            tmp_path / f"x{name}",
            "sql",
            _without_database(sql_data.rows),
            ["SELECT 1"] * 8,
        )
        found.append([(out / file).read_bytes() for file in ("scores.jsonl", "summary.json")])
    assert found[0] == found[1]


def _without_database(rows: list[Row]) -> list[Row]:
    return [Row(row.id, row.messages, {**row.fields, "database": None}) for row in rows]


def test_a_function_of_the_users(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    (tmp_path / "mine.py").write_text("def right(answer, gold, row):\n    return answer == gold\n")
    files = {"scorers/mine.py": store.put_input(tmp_path / "mine.py")}
    row = Row(
        "1", ({"role": "user", "content": "?"}, {"role": "assistant", "content": "yes"}), {"task": "chat"}
    )
    out = score_in_a_run(store, tmp_path / "x", "chat", [row], ["yes"], files)
    assert json.loads((out / "summary.json").read_text())["measures"]["mine:right"]["value"] == 1.0


def test_predictions_for_other_rows_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    row = Row("1", ({"role": "user", "content": "?"}, {"role": "assistant", "content": "yes"}), {})
    with pytest.raises(AssertionError, match="19"):
        score_in_a_run(
            open_store(str(tmp_path / "s")), tmp_path / "x", "viggo", [row], ["yes"], predicted_ids=["2"]
        )
    error = capfd.readouterr().err
    assert "the predictions are not for these rows" in error
    assert "Traceback" not in error
