"""A directory is read in both layouts, under every name of a part, in the data's order."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import data_sets
import pytest

from jobs.data.sources import detect, read_part
from jobs.tasks.sql.spider import create_table_text, quote
from launcher.outcome import Failure, Reason

LAYOUTS = pytest.mark.parametrize("below", ["", "NAME"], ids=["direct", "parent"])


@LAYOUTS
@pytest.mark.parametrize(
    ("task", "source", "write"),
    [
        ("sql", "spider-create-context", data_sets.write_spider_create_context),
        ("sql", "spider", data_sets.write_spider),
        ("viggo", "viggo", data_sets.write_viggo),
        ("chat", "chat", data_sets.write_chat),
    ],
)
def test_both_layouts_are_detected_and_read_equally(
    tmp_path: Path, below: str, task: str, source: str, write
) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path / below.replace("NAME", source))
    assert detect(task, tmp_path) == source
    rows = read_part(task, source, tmp_path, "train")
    assert [row.id for row in rows[:2]] == ["train-00001", "train-00002"]
    assert len({row.id for row in rows}) == len(rows)


@LAYOUTS
def test_databases_are_named_relative_to_the_directory(tmp_path: Path, below: str) -> None:
    data_sets.write_spider(tmp_path / below.replace("NAME", "spider"))
    rows = read_part("sql", "spider", tmp_path, "train")
    assert rows[0].fields["database"] is None
    assert all((tmp_path / row.fields["database"]).is_file() for row in rows[2:])
    assert not rows[-1].fields["database"].startswith("/")


@pytest.mark.parametrize("name", ["validation", "val", "dev", "test"])
def test_the_studys_validation_file_has_every_part_name(tmp_path: Path, name: str) -> None:
    data_sets.write_spider_create_context(tmp_path)
    rows = read_part("sql", "spider-create-context", tmp_path, name)
    assert [row.id for row in rows] == [f"validation-{n:05}" for n in range(1, 5)]


@pytest.mark.parametrize("name", ["dev", "validation", "test"])
def test_spiders_dev_part_has_every_part_name(tmp_path: Path, name: str) -> None:
    data_sets.write_spider(tmp_path, dev=True)
    assert read_part("sql", "spider", tmp_path, name)[0].id == "dev-00001"


@pytest.mark.parametrize("name", ["validation", "val", "dev"])
def test_viggos_validation_part_has_every_part_name(tmp_path: Path, name: str) -> None:
    data_sets.write_viggo(tmp_path)
    rows = read_part("viggo", "viggo", tmp_path, name)
    assert len(rows) == 5
    assert rows[0].gold == "inform(name[valid 0])"
    assert rows[0].fields == {"task": "viggo", "target": "It is “valid”, number 0."}


def test_spiders_schema_builds_a_database_with_types_and_keys() -> None:
    text = create_table_text(data_sets.spider_schema("shop"))
    assert text == (
        "CREATE TABLE shop (Shop_ID NUMERIC PRIMARY KEY, Name TEXT);\n"
        'CREATE TABLE "order" (Shop_ID NUMERIC, "Line No" NUMERIC, paid BOOLEAN, '
        'PRIMARY KEY (Shop_ID, "Line No"), FOREIGN KEY (Shop_ID) REFERENCES shop(Shop_ID))'
    )
    connection = sqlite3.connect(":memory:")
    connection.executescript(text)
    connection.close()


@pytest.mark.parametrize(
    ("name", "quoted"), [("a", "a"), ("a b", '"a b"'), ("Order", '"Order"'), ('"', '""""'), ("1a", '"1a"')]
)
def test_names_are_quoted_only_if_needed(name: str, quoted: str) -> None:
    assert quote(name) == quoted


def test_a_database_id_cannot_leave_its_folder(tmp_path: Path) -> None:
    data_sets.write_spider(tmp_path)
    text = (tmp_path / "tables.json").read_text().replace('"shop_3"', '"../../shop_3"')
    (tmp_path / "tables.json").write_text(text)
    with pytest.raises(Failure) as caught:
        read_part("sql", "spider", tmp_path, "train")
    assert any("cannot be a file name" in problem for problem in caught.value.problems)


def test_a_chat_row_keeps_its_id_and_extra_keys(tmp_path: Path) -> None:
    data_sets.write_chat(tmp_path)
    line = data_sets.chat_line("Q?", "A", id="mine-7", difficulty=3)
    (tmp_path / "test.jsonl").write_text(line + "\n\n")
    (row,) = read_part("chat", "chat", tmp_path, "test")
    assert (row.id, row.fields) == ("mine-7", {"difficulty": 3, "task": "chat"})


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    data_sets.write_chat(tmp_path)
    line = data_sets.chat_line("Q\u2028?", "A")
    (tmp_path / "test.jsonl").write_bytes(b"\xef\xbb\xbf" + line.encode() + b"\r\n")
    assert read_part("chat", "chat", tmp_path, "test")[0].messages[0]["content"] == "Q\u2028?"


def test_two_sources_in_one_directory_need_a_source_name(tmp_path: Path) -> None:
    data_sets.write_spider(tmp_path / "spider")
    data_sets.write_spider_create_context(tmp_path / "spider-create-context")
    with pytest.raises(Failure) as caught:
        detect("sql", tmp_path)
    assert caught.value.reason is Reason.USAGE
    assert "--source" in caught.value.next_step
    assert detect("sql", tmp_path / "spider") == "spider"


@pytest.mark.parametrize("task", ["sql", "viggo", "chat"])
def test_a_directory_without_data_is_an_error_with_the_expected_files(tmp_path: Path, task: str) -> None:
    with pytest.raises(Failure) as caught:
        detect(task, tmp_path)
    assert caught.value.reason is Reason.MISSING_INPUT
    with pytest.raises(Failure) as caught:
        detect(task, tmp_path / "absent")
    assert caught.value.reason is Reason.MISSING_INPUT


def test_unknown_parts_and_sources_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    data_sets.write_viggo(tmp_path)
    for source, part in (("viggo", "holdout"), ("spider", "train")):
        with pytest.raises(Failure) as caught:
            read_part("viggo", source, tmp_path, part)
        assert caught.value.reason is Reason.USAGE
        assert "viggo" in caught.value.what


@pytest.mark.shared
def test_the_real_spider_golds_compile_on_the_schema_as_rendered(shared_data: Path) -> None:
    rows = read_part("sql", "spider", shared_data, "train")
    assert len(rows) == 7000
    assert len({row.fields["db_id"] for row in rows if row.fields["database"]}) == 139
    connections: dict[str, sqlite3.Connection] = {}
    failed = []
    for row in rows:
        name = row.fields["db_id"]
        if name not in connections:
            connections[name] = sqlite3.connect(":memory:")
            connections[name].executescript(row.fields["schema"])
        try:
            connections[name].execute(f"EXPLAIN {row.gold}")
        except sqlite3.Error as error:
            failed.append(str(error))
    for connection in connections.values():
        connection.close()
    # Spider's own: two golds with ORDER BY before INTERSECT, one on a table that tables.json names otherwise.
    assert len(failed) == 3
