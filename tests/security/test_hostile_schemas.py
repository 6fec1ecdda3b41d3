"""Schema text of data is hostile: what it runs while the data is prepared ends by the sandbox's limits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from launching import Launcher

#: One call that cannot be interrupted: quadratic in its arguments.
_LONG_CALL = "instr(zeroblob(100000000), zeroblob(50000000) || x'01')"
SCHEMAS = {
    "a table as a query": f"CREATE TABLE t AS SELECT {_LONG_CALL} AS a",
    "a view that a trigger reads": (
        f"CREATE TABLE t (a INT); CREATE VIEW v AS SELECT {_LONG_CALL} AS a; CREATE TABLE u AS SELECT * FROM v"
    ),
    "memory": "CREATE TABLE t AS SELECT hex(hex(hex(zeroblob(100000000)))) AS a",
}


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_a_schema_that_never_ends_costs_its_rows_and_seconds(
    launcher: Launcher, tmp_path: Path, schema: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()

    def row(number: int, context: str) -> dict[str, str]:
        question = f"How many of {number}?"
        return {"question": question, "answer": "SELECT a FROM t", "context": context, "db_id": f"d{number}"}

    good = "CREATE TABLE t (a INT, b INT)"
    for part, count in (("train", 12), ("val", 4)):
        rows = [row(number, good if number else schema) for number in range(count)]
        (data / f"spider_create_context_{part}.json").write_text(json.dumps(rows))
    done = launcher(
        "data", "sql", "--data", str(data), "--out", str(tmp_path / "out"), "-o", "json", timeout_s=120
    )
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    found = {(fault["part"], fault["what"]): fault["rows"] for fault in card["faults"]}
    refused = "the schema reaches the sandbox's limits of CPU time or memory"
    broken = "the gold query does not compile on a database built from the schema"
    assert found["test", broken] == 1
    assert found.get(("test", refused), 1) == 1
