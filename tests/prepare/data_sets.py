"""Tiny data sets in the layouts of the real ones, of our own making."""

from __future__ import annotations

import csv
import json
import sqlite3
from pathlib import Path
from typing import Any


def write_spider_create_context(directory: Path, train: int = 12, test: int = 4) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", train), ("val", test)):
        rows = [
            {
                "question": f"How many {name} things have size {number}?",
                "context": "CREATE TABLE things (size INTEGER)",
                "answer": f"SELECT count(*) FROM things WHERE size = {number}",
                "db_id": f"{name}_db",
            }
            for number in range(count)
        ]
        (directory / f"spider_create_context_{name}.json").write_text(json.dumps(rows))
    return directory


def write_viggo(directory: Path, train: int = 12, validation: int = 5, test: int = 4) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", train), ("valid", validation), ("test", test)):
        with (directory / f"viggo-{name}.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["mr", "ref"])
            for number in range(count):
                writer.writerow([f"inform(name[{name} {number}])", f"It is “{name}”, number {number}."])
    return directory


def spider_schema(db_id: str) -> dict[str, Any]:
    """Two tables in the form of tables.json: a reserved name, a name with a blank, a key over two columns."""
    return {
        "db_id": db_id,
        "table_names_original": ["shop", "order", "sqlite_sequence"],
        "column_names_original": [
            [-1, "*"],
            [0, "Shop_ID"],
            [0, "Name"],
            [1, "Shop_ID"],
            [1, "Line No"],
            [1, "paid"],
            [2, "name"],
        ],
        "column_types": ["text", "number", "text", "number", "number", "boolean", "text"],
        "primary_keys": [1, [3, 4]],
        "foreign_keys": [[3, 1]],
    }


def write_spider(directory: Path, databases: int = 14, dev: bool = False) -> Path:
    """Fourteen databases with two questions each; database 0 has no file and database 1 no rows."""
    directory.mkdir(parents=True, exist_ok=True)
    names = [f"shop_{number}" for number in range(databases)]
    (directory / "tables.json").write_text(json.dumps([spider_schema(name) for name in names]))
    for number, name in enumerate(names[1:], 1):
        path = directory / "database" / name / f"{name}.sqlite"
        path.parent.mkdir(parents=True, exist_ok=True)
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE shop (Shop_ID NUMERIC PRIMARY KEY, Name TEXT)")
            if number > 1:
                connection.execute("INSERT INTO shop VALUES (1, 'One')")
        connection.close()
    rows = [
        {"question": f"{text} of {name}?", "query": query, "db_id": name}
        for name in names
        for text, query in (("Names", "SELECT Name FROM shop"), ("Count", "SELECT count(*) FROM shop"))
    ]
    (directory / "train_spider.json").write_text(json.dumps(rows))
    if dev:
        (directory / "dev.json").write_text(json.dumps(rows[4:10]))
    return directory


def chat_line(question: str, answer: str, **more: Any) -> str:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({**more, "messages": messages})


def write_chat(directory: Path, train: int = 12, test: int = 4, validation: int | None = None) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", train), ("validation", validation), ("test", test)):
        if count is not None:
            lines = [chat_line(f"{name} {number}?", f"answer {number}") for number in range(count)]
            (directory / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return directory
