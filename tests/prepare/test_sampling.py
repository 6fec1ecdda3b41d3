"""Sampling and carving: reproducible, disjoint, a smaller request inside a larger one, the data's order kept."""

from __future__ import annotations

from pathlib import Path

import data_sets
from hypothesis import given
from hypothesis import strategies as st

from jobs.data.splits import Parts, carve, choose, collect, conversation
from jobs.tasks.chat.prompt import make_row
from jobs.tasks.reading import Problems
from jobs.tasks.rows import Row
from launcher.spec.experiment import Data

SEEDS = st.integers(min_value=-(2**40), max_value=2**40)


def rows_of(questions: list[int]) -> list[Row]:
    """Rows whose question may repeat; ids say the position."""
    return [
        make_row(
            f"train-{number:05}",
            [{"role": "user", "content": f"Q{q}"}, {"role": "assistant", "content": str(number)}],
            {},
        )
        for number, q in enumerate(questions, 1)
    ]


def ids(rows: list[Row]) -> list[str]:
    return [row.id for row in rows]


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), SEEDS)
def test_a_smaller_sample_is_inside_a_larger_one(total: int, first: int, second: int, seed: int) -> None:
    small, large = sorted((min(first, total), min(second, total)))
    rows, problems = rows_of(list(range(total))), Problems()
    few = ids(choose(rows, small, seed, "train", problems))
    many = ids(choose(rows, large, seed, "train", problems))
    assert len(few) == small
    assert set(few) <= set(many)
    assert many == sorted(many)
    assert many == ids(choose(rows, large, seed, "train", problems))
    assert choose(rows, None, seed, "train", problems) == rows
    assert not problems.lines


@given(st.lists(st.integers(0, 25), min_size=2, max_size=60), st.data(), SEEDS)
def test_carved_validation_shares_no_question_with_training(
    questions: list[int], data: st.DataObject, seed: int
) -> None:
    rows, problems = rows_of(questions), Problems()
    validation_rows = data.draw(st.integers(0, len(rows) - 1))
    train, validation = carve(rows, None, validation_rows, seed, problems)
    assert len(validation) == validation_rows
    assert not {conversation(row) for row in train} & {conversation(row) for row in validation}
    held = {conversation(row) for row in validation}
    assert [row for row in rows if conversation(row) not in held] == train
    again = carve(rows, None, validation_rows, seed, Problems())
    assert again == (train, validation)


@given(st.integers(20, 60), st.integers(0, 9), st.integers(1, 10), SEEDS)
def test_more_training_rows_change_neither_validation_nor_what_was_taken(
    total: int, validation_rows: int, train_rows: int, seed: int
) -> None:
    rows, problems = rows_of(list(range(total))), Problems()
    few, validation = carve(rows, train_rows, validation_rows, seed, problems)
    more, same_validation = carve(rows, train_rows + 1, validation_rows, seed, problems)
    assert same_validation == validation
    assert set(ids(few)) < set(ids(more))
    assert ids(more) == sorted(ids(more))
    smaller_validation = carve(rows, train_rows, max(0, validation_rows - 1), seed, problems)[1]
    assert set(ids(smaller_validation)) <= set(ids(validation))
    assert not problems.lines


def test_another_seed_takes_other_rows() -> None:
    rows = rows_of(list(range(200)))
    assert choose(rows, 20, 0, "train", Problems()) != choose(rows, 20, 1, "train", Problems())


def gather(directory: Path, **data: object) -> Parts:
    settings = Data.model_validate(data)
    task = {"chat": "chat", "viggo": "viggo"}.get(settings.source, "sql")
    return collect(task, settings, directory, lambda _done, _total: None)


def test_without_validation_the_training_part_is_unchanged(tmp_path: Path) -> None:
    data_sets.write_spider_create_context(tmp_path)
    parts = gather(tmp_path, source="spider-create-context")
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (12, 0, 4)
    assert ids(parts.train) == sorted(ids(parts.train))


def test_validation_is_carved_from_training_if_the_source_has_none(tmp_path: Path) -> None:
    data_sets.write_spider_create_context(tmp_path)
    parts = gather(tmp_path, source="spider-create-context", validation_rows=3)
    assert len(parts.validation) == 3
    assert not set(ids(parts.train)) & set(ids(parts.validation))
    assert len(parts.train) + 3 == 12
    assert "3 training rows were set aside" in parts.notes[0]


def test_the_sources_validation_part_is_used(tmp_path: Path) -> None:
    data_sets.write_viggo(tmp_path)
    parts = gather(tmp_path, source="viggo", train_rows=5, validation_rows=2, test_rows=3)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (5, 2, 3)
    assert all(row.id.startswith("validation-") for row in parts.validation)
    assert gather(tmp_path, source="viggo", validation_rows=0).validation == []


def test_chat_without_a_validation_file_is_carved(tmp_path: Path) -> None:
    data_sets.write_chat(tmp_path)
    assert len(gather(tmp_path, source="chat", validation_rows=2).validation) == 2
    data_sets.write_chat(tmp_path, validation=5)
    assert len(gather(tmp_path, source="chat", validation_rows=4).validation) == 4


def test_spider_without_dev_holds_out_whole_databases_with_rows(tmp_path: Path) -> None:
    data_sets.write_spider(tmp_path)
    parts = gather(tmp_path, source="spider", validation_rows=2)
    held = {row.fields["db_id"] for row in parts.test}
    assert len(held) == 2
    assert not held & {row.fields["db_id"] for row in [*parts.train, *parts.validation]}
    assert not held & {"shop_0", "shop_1"}  # no file, and no rows
    assert len(parts.test) == 4
    assert "2 whole databases" in parts.notes[0]


def test_spider_with_dev_is_tested_on_dev(tmp_path: Path) -> None:
    data_sets.write_spider(tmp_path, dev=True)
    parts = gather(tmp_path, source="spider", test_rows=5)
    assert len(parts.train) == 28
    assert all(row.id.startswith("dev-") for row in parts.test)
    assert len(parts.test) == 5
