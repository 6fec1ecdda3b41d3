"""The built-in sample: the same bytes from the same seed, honest questions, tests on databases never seen."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import statistics
from pathlib import Path

import pytest

from jobs.data import tokens
from jobs.data.splits import collect
from jobs.tasks.rows import Row, write_rows
from jobs.tasks.sql.sample.databases import databases, schemas
from jobs.tasks.sql.sample.generate import DEFAULT_ROWS, MOST_ROWS, PARTS, generate, split
from jobs.tasks.sql.sample.question_kinds import KINDS, kind_schedule
from launcher.outcome import Failure, Reason
from launcher.spec.experiment import Data


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Row]]]:
    directory = tmp_path_factory.mktemp("sample")
    return directory, {part: generate(part, DEFAULT_ROWS[part], 0, directory) for part in PARTS}


def digests(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.rglob("*.sqlite")}


def test_two_generations_give_the_same_bytes(made: tuple[Path, dict[str, list[Row]]], tmp_path: Path) -> None:
    directory, rows = made
    again = {part: generate(part, DEFAULT_ROWS[part], 0, tmp_path) for part in PARTS}
    assert again == rows
    assert digests(tmp_path) == digests(directory)
    assert len(digests(tmp_path)) > 60


def test_rows_and_databases_of_seed_0_are_those_of_earlier_versions(
    made: tuple[Path, dict[str, list[Row]]], tmp_path: Path
) -> None:
    directory, rows = made
    found = {}
    for path in sorted(directory.rglob("*.sqlite")):
        connection = sqlite3.connect(path)
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        names = [name for (name,) in tables]
        found[path.name] = {name: connection.execute(f'SELECT * FROM "{name}"').fetchall() for name in names}
        connection.close()
    write_rows(tmp_path / "test.jsonl", rows["test"])
    digest = hashlib.sha256((tmp_path / "test.jsonl").read_bytes()).hexdigest()
    assert digest == "b141ea6a0cc9af141567d5a20cc9682e4f658ec74ebd366ebd47fe3db0b4d0d6"
    digest = hashlib.sha256(json.dumps(found).encode()).hexdigest()
    assert digest == "2c09e04d31af24ecfa17a5d86eec641b67309c52184c5784342d6e692d751fd2"


def test_database_files_do_not_name_the_library_that_wrote_them(
    made: tuple[Path, dict[str, list[Row]]],
) -> None:
    directory, rows = made
    data = (directory / rows["test"][0].fields["database"]).read_bytes()
    assert data[:16] == b"SQLite format 3\0"
    assert int.from_bytes(data[96:100], "big") == 3_040_000


def test_another_seed_gives_another_sample(made: tuple[Path, dict[str, list[Row]]]) -> None:
    other = generate("test", 20, 1, None)
    assert [row.messages for row in other] != [row.messages for row in made[1]["test"][:20]]


def test_a_smaller_sample_is_the_beginning_of_a_larger_one(made: tuple[Path, dict[str, list[Row]]]) -> None:
    assert generate("train", 30, 0, None) == made[1]["train"][:30]


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_parts_share_no_database_and_no_table(seed: int) -> None:
    parts = split(seed)
    tables = {part: {t.name for d in found for t in d.tables} for part, found in parts.items()}
    assert not tables["test"] & tables["train"]
    assert not tables["validation"] & (tables["train"] | tables["test"])
    assert sum(len(found) for found in parts.values()) == len(databases(seed))
    assert all(any(len(d.tables) == 2 for d in found) for found in parts.values())


def test_there_are_many_schemas_with_types_and_links() -> None:
    tables = [table for _, found in schemas() for table in found]
    assert len(tables) >= 60
    assert len({table.name for table in tables}) == len(tables)
    assert sum(table.parent is not None for table in tables) >= 20
    assert all(3 <= len(table.columns) <= 6 for table in tables)


@pytest.mark.parametrize("part", PARTS)
def test_every_gold_runs_on_its_file_and_returns_something(
    made: tuple[Path, dict[str, list[Row]]], part: str
) -> None:
    directory, rows = made
    for row in rows[part]:
        path = directory / row.fields["database"]
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        result = connection.execute(row.gold).fetchall()
        connection.close()
        assert result, row.gold
        assert all(value is not None for line in result for value in line), row.gold


@pytest.mark.parametrize("part", PARTS)
def test_the_schema_shown_is_the_databases_own(made: tuple[Path, dict[str, list[Row]]], part: str) -> None:
    directory, rows = made
    row = rows[part][0]
    connection = sqlite3.connect(directory / row.fields["database"])
    real = [text for (text,) in connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table'")]
    connection.close()
    assert ";\n".join(real) == row.fields["schema"] == row.fields["context"]
    assert row.fields["context"] in row.messages[0]["content"]


def test_no_question_has_two_golds(made: tuple[Path, dict[str, list[Row]]]) -> None:
    rows = [row for part in PARTS for row in made[1][part]]
    asked = {(row.fields["db_id"], row.fields["question"]) for row in rows}
    assert len(asked) == len(rows)
    assert len({(row.fields["db_id"], row.gold) for row in rows}) == len(rows)


def test_every_kind_of_question_occurs(made: tuple[Path, dict[str, list[Row]]]) -> None:
    order = kind_schedule()
    assert set(order) == set(KINDS)
    assert len(made[1]["test"]) > len(order)
    for word in (" LIKE ", "GROUP BY", "HAVING", "DISTINCT", " JOIN ", "BETWEEN", "LIMIT", "(SELECT", " OR "):
        assert any(word in row.gold for row in made[1]["test"]), word


def test_prompts_and_answers_are_short(made: tuple[Path, dict[str, list[Row]]]) -> None:
    rows = made[1]["train"]
    assert statistics.fmean(map(tokens.prompt_tokens, rows)) < 130
    assert statistics.fmean(map(tokens.answer_tokens, rows)) < 30


@pytest.mark.parametrize("seed", [0, 3])
def test_the_sample_has_as_many_rows_as_documented(seed: int) -> None:
    assert len(generate("validation", MOST_ROWS["validation"], seed, None)) == MOST_ROWS["validation"]
    assert len(generate("test", MOST_ROWS["test"], seed, None)) == MOST_ROWS["test"]


def test_more_rows_than_the_sample_has_is_an_error_with_the_limit(tmp_path: Path) -> None:
    data = Data(source="sample", train_rows=MOST_ROWS["train"] + 1, test_rows=MOST_ROWS["test"] + 1)
    with pytest.raises(Failure) as caught:
        collect("sql", data, tmp_path, lambda _done, _total: None)
    assert caught.value.reason is Reason.BAD_DATA
    assert caught.value.problems == (
        "data.train_rows: 3001 asked for, the sample has no more than 3000",
        "data.test_rows: 1001 asked for, the sample has no more than 1000",
    )
