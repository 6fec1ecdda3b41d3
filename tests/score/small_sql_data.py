"""A small SQL data set in Spider's layout, with a real database."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from jobs.data.sources import read_part
from jobs.measures.row_score import RowScore
from jobs.tasks.rows import Row
from jobs.tasks.sql.judging import score

SINGERS = [
    (1, "Ann", "France", 30, 1.5),
    (2, "Bob", "France", 25, 2.25),
    (3, "Cem", "Turkey", 30, None),
    (4, "Dan", "Chad", 41, 0.1),
    (5, "Eve", "Chad", 19, 0.2),
]
CONCERTS = [(1, 1, 2014), (2, 1, 2015), (3, 2, 2014), (4, 4, 2016)]
QUESTIONS = [
    ("How many singers are there?", "SELECT count(*) FROM singer"),
    ("Names by age.", "SELECT name FROM singer ORDER BY age DESC"),
    ("Names and countries of singers from France.", "SELECT name, country FROM singer WHERE country = 'France'"),
    ("Who sang in 2014?", "SELECT DISTINCT name FROM singer AS a JOIN concert ON a.id = singer_id WHERE year = 2014"),
    ("The oldest singer.", "SELECT name FROM singer ORDER BY age DESC LIMIT 1"),
    ("The two oldest.", "SELECT name FROM singer ORDER BY age DESC LIMIT 2"),
    ("Average weight.", "SELECT avg(weight) FROM singer WHERE country = \"Chad\""),
    ("Nobody.", "SELECT name FROM singer WHERE age > 100"),
]  # fmt: skip


@dataclass
class SqlData:
    """A data set, and scoring of answers to it."""

    directory: Path
    rows: list[Row]

    def score(self, answers: list[str], workers: int = 1) -> list[RowScore]:
        return score(self.rows, answers, self.directory, workers=workers).rows

    def one(self, question: int, answer: str) -> RowScore:
        (found,) = score([self.rows[question]], [answer], self.directory, workers=1).rows
        return found

    @property
    def database(self) -> Path:
        return self.directory / "database" / "music" / "music.sqlite"


def make(directory: Path) -> SqlData:
    """Write the data set's files and read them as a user's data."""
    (directory / "database" / "music").mkdir(parents=True)
    with sqlite3.connect(directory / "database" / "music" / "music.sqlite") as connection:
        connection.execute(
            "CREATE TABLE singer (id INTEGER PRIMARY KEY, name TEXT, country TEXT, age INTEGER, weight REAL)"
        )
        connection.execute(
            "CREATE TABLE concert (id INTEGER PRIMARY KEY, singer_id INTEGER REFERENCES singer(id), year INTEGER)"
        )
        connection.executemany("INSERT INTO singer VALUES (?, ?, ?, ?, ?)", SINGERS)
        connection.executemany("INSERT INTO concert VALUES (?, ?, ?)", CONCERTS)
    connection.close()
    columns = [
        (-1, "*"),
        (0, "id"),
        (0, "name"),
        (0, "country"),
        (0, "age"),
        (0, "weight"),
        (1, "id"),
        (1, "singer_id"),
        (1, "year"),
    ]
    schema = {
        "db_id": "music",
        "table_names_original": ["singer", "concert"],
        "column_names_original": columns,
        "column_types": ["text", "number", "text", "text", "number", "number", "number", "number", "number"],
        "primary_keys": [1, 6],
        "foreign_keys": [[7, 1]],
    }
    (directory / "tables.json").write_text(json.dumps([schema]))
    questions = [{"question": q, "query": sql, "db_id": "music"} for q, sql in QUESTIONS]
    (directory / "train_spider.json").write_text(json.dumps(questions))
    return SqlData(directory, read_part("sql", "spider", directory, "train"))
