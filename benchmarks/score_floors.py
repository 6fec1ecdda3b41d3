"""Baseline scores of trivial answers: `python benchmarks/score_floors.py --data DIR`.

DIR holds `spider-create-context`, `spider` and `viggo`. For SQL: an answer that returns nothing,
`SELECT count(*)` of the first table, and the SQL of the nearest training question; for ViGGO the
meaning of the nearest training sentence. Nearest is by the words shared (Jaccard).
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from jobs.data.sources import read_part
from jobs.measures.cache import Cache, default_path
from jobs.measures.row_score import RowScore, summarise
from jobs.tasks.registry import question_of
from jobs.tasks.rows import Row
from jobs.tasks.sql.judging import default_workers, score
from jobs.tasks.viggo import scorer

_FIRST_TABLE = re.compile(r"CREATE TABLE\s+(\"[^\"]+\"|\S+)", re.IGNORECASE)
#: Returns no row on any database; one column, like most gold queries.
EMPTY = "SELECT NULL WHERE 0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    study = read_part("sql", "spider-create-context", data, "test")
    train = read_part("sql", "spider-create-context", data, "train")
    _sql("the study's 568 rows, generated databases", study, train, data)
    spider = read_part("sql", "spider", data, "train")
    _sql("Spider's training questions, real databases", spider, [], data)
    test, known = read_part("viggo", "viggo", data, "test"), read_part("viggo", "viggo", data, "train")
    nearest = _nearest(test, known)
    _show(
        "viggo: nearest training sentence",
        scorer.score(test, nearest).rows,
        ("exact", "canonical", "function"),
    )


def _sql(name: str, rows: Sequence[Row], train: Sequence[Row], data: Path) -> None:
    print(name)
    answers = {
        "an answer that returns nothing": [EMPTY] * len(rows),
        "count(*) of the first table": [_count(row) for row in rows],
    }
    if train:
        answers["nearest training question"] = _nearest(rows, train)
    cache = Cache(default_path())
    for kind, given in answers.items():
        found = score(rows, given, data, workers=default_workers(), cache=cache).rows
        _show(f"  {kind}", found, ("exact", "strict", "official"))
    cache.close()


def _show(name: str, scores: Sequence[RowScore], measures: Sequence[str]) -> None:
    found = summarise("", "", scores)["measures"]
    shown = "  ".join(f"{m} {100 * found[m]['value']:.1f} % ({found[m]['correct']})" for m in measures)
    print(f"{name:36} {shown}  of {found[measures[0]]['of']}")


def _count(row: Row) -> str:
    table = _FIRST_TABLE.search(row.fields["context"])
    return f"SELECT count(*) FROM {table[1] if table else 'x'}"


def _nearest(rows: Sequence[Row], train: Sequence[Row]) -> list[str]:
    """For each row, the gold answer of the training row with the most similar question (Jaccard)."""
    known = [_words(row) for row in train]
    index: dict[str, list[int]] = defaultdict(list)
    for place, words in enumerate(known):
        for word in words:
            index[word].append(place)
    answers = []
    for row in rows:
        words = _words(row)
        shared = Counter(place for word in words for place in index.get(word, ()))
        best = max(
            shared, key=lambda p: (shared[p] / (len(words) + len(known[p]) - shared[p]), -p), default=0
        )
        answers.append(train[best].gold)
    return answers


def _words(row: Row) -> set[str]:
    return set(re.findall(r"\w+", question_of(row).lower()))


if __name__ == "__main__":
    main()
