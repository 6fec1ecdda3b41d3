"""Compare query results: as bags of rows, in order only if the gold orders, columns matched by content.

A gold query allows several results: `ORDER BY` leaves rows with equal keys in any order, and `LIMIT` takes any
of the rows that tie at its edge. They are represented as segments: of each segment's rows, `take` come next,
in any order.

Not covered: a `LIMIT` inside a subquery (see nondeterminism.py).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Value = None | int | float | str | bytes
Row = tuple[Value, ...]

#: Numbers, at least one of them a float, are equal within this: relative to the larger, absolute below 1.
TOLERANCE = 1e-9
#: Column assignments tried before the results count as different; only adversarial tables reach it.
MAX_TRIALS = 5_000


@dataclass(frozen=True)
class Table:
    """A query's result; `width` is the number of columns, `undecodable` says that some text is not UTF-8."""

    width: int
    rows: Sequence[Row]
    undecodable: bool = False


@dataclass(frozen=True)
class Segment:
    """`take` of these rows come next, in any order."""

    rows: Sequence[Row]
    take: int


@dataclass(frozen=True)
class Expected:
    """All results that one gold query allows on one database."""

    width: int
    segments: tuple[Segment, ...]

    @property
    def length(self) -> int:
        return sum(segment.take for segment in self.segments)


def unordered(table: Table) -> Expected:
    """Any order of exactly these rows."""
    return Expected(table.width, (Segment(table.rows, len(table.rows)),) if table.rows else ())


def in_order(table: Table) -> Expected:
    """Exactly these rows in exactly this order."""
    return Expected(table.width, tuple(Segment((row,), 1) for row in table.rows))


def grouped(table: Table, keys: Sequence[Row], offset: int, limit: int | None) -> Expected:
    """Rows sorted by `keys` (one per row, ties adjacent), of which `limit` from `offset` on are expected."""
    end = len(table.rows) if limit is None else min(len(table.rows), offset + limit)
    segments = []
    start = 0
    for stop in _group_ends(keys):
        take = min(stop, end) - max(start, offset)
        if take > 0:
            segments.append(Segment(table.rows[start:stop], take))
        start = stop
    return Expected(table.width, tuple(segments))


def _group_ends(keys: Sequence[Row]) -> Iterator[int]:
    for index in range(1, len(keys)):
        if not all(_equal(a, b) for a, b in zip(keys[index - 1], keys[index], strict=True)):
            yield index
    if keys:
        yield len(keys)


def _equal(a: Value, b: Value) -> bool:
    return a == b or ((isinstance(a, float) or isinstance(b, float)) and _close(a, b))


def _close(a: Value, b: Value) -> bool:
    if not isinstance(a, int | float) or not isinstance(b, int | float):
        return False
    if math.isinf(a) or math.isinf(b):
        return a == b
    return abs(a - b) <= TOLERANCE * max(1.0, abs(a), abs(b))


def as_is(expected: Expected, answer: Table) -> bool:
    """Whether the answer is an allowed result, with every column in its place and numbers exactly equal."""
    if expected.width != answer.width or expected.length != len(answer.rows):
        return False
    columns = range(expected.width)
    return _fits([(expected, answer)], columns, columns)


def same(expected: Sequence[Expected], answers: Sequence[Table]) -> bool:
    """Whether one assignment of columns makes every answer an allowed result.

    `expected[i]` and `answers[i]` come from the same database. The assignment is the same for all databases,
    which makes accidental agreement rarer.
    """
    pairs = list(zip(expected, answers, strict=True))
    if any(e.width != a.width or e.length != len(a.rows) for e, a in pairs):
        return False
    pairs = [(e, a) for e, a in pairs if e.length]
    if not pairs:
        return True
    if assignable(pairs):
        return True
    unified = [_unified(e, a) for e, a in pairs]
    return unified != pairs and assignable(unified)


def assignable(pairs: Sequence[tuple[Expected, Table]]) -> bool:
    """As `same`, for pairs of equal width and length that have rows; numbers must be exactly equal."""
    width = pairs[0][0].width
    if any(e.width != width for e, _ in pairs):
        return False
    if _fits(pairs, range(width), range(width)):
        return True
    if width == 1:
        return False
    candidates = [[j for j in range(width) if _fits(pairs, [i], [j])] for i in range(width)]
    if not all(candidates):
        return False
    # Columns with few candidates first, so that wrong assignments fail early.
    order = sorted(range(width), key=lambda i: (len(candidates[i]), i))
    return _search(pairs, order, candidates)


def _search(pairs: Sequence[tuple[Expected, Table]], order: list[int], candidates: list[list[int]]) -> bool:
    """Depth-first search over assignments; each prefix is checked, and equal columns are tried once."""
    content = _column_classes(pairs)
    trials = 0
    stack: list[list[int]] = [[]]
    while stack:
        chosen = stack.pop()
        depth = len(chosen)
        if depth == len(order):
            return True
        seen: set[int] = set()
        following = []
        for j in candidates[order[depth]]:
            if j in chosen or content[j] in seen:
                continue
            seen.add(content[j])
            trials += 1
            if trials > MAX_TRIALS:
                return False
            if depth == 0 or _fits(pairs, order[: depth + 1], [*chosen, j]):
                following.append([*chosen, j])
        stack.extend(reversed(following))
    return False


def _column_classes(pairs: Sequence[tuple[Expected, Table]]) -> list[int]:
    """A number per answer column; equal for columns with the same values on all databases."""
    known: dict[tuple[Row, ...], int] = {}
    width = pairs[0][1].width
    return [
        known.setdefault(tuple(tuple(row[j] for row in answer.rows) for _, answer in pairs), len(known))
        for j in range(width)
    ]


def _fits(pairs: Sequence[tuple[Expected, Table]], gold: Sequence[int], answer: Sequence[int]) -> bool:
    """Whether the answers' columns `answer`, row by row, are allowed values of the gold's columns `gold`."""
    whole = gold == answer == range(pairs[0][0].width)
    for expected, table in pairs:
        start = 0
        for segment in expected.segments:
            given = table.rows[start : start + segment.take]
            start += segment.take
            wanted = segment.rows
            if not whole:
                given = [tuple(row[j] for j in answer) for row in given]
                wanted = [tuple(row[i] for i in gold) for row in wanted]
            if given != wanted and not _within(Counter(given), Counter(wanted)):
                return False
    return True


def _within(part: Counter[Row], whole: Counter[Row]) -> bool:
    return all(whole[row] >= count for row, count in part.items())


def _unified(expected: Expected, answer: Table) -> tuple[Expected, Table]:
    """Both with numbers that are equal within TOLERANCE made identical; unchanged if there are no floats."""
    tables = [*(segment.rows for segment in expected.segments), answer.rows]
    names = _representatives(tables)
    if not names:
        return expected, answer

    def renamed(rows: Sequence[Row]) -> list[Row]:
        return [tuple(names.get(v, v) if isinstance(v, int | float) else v for v in row) for row in rows]

    segments = tuple(Segment(renamed(segment.rows), segment.take) for segment in expected.segments)
    return Expected(expected.width, segments), Table(answer.width, renamed(answer.rows))


def _representatives(tables: Sequence[Sequence[Row]]) -> dict[float, float]:
    """Number -> the first of its cluster of close numbers, if it differs; two integers never share a cluster."""
    numbers = {v for rows in tables for row in rows for v in row if isinstance(v, int | float)}
    if not any(isinstance(number, float) for number in numbers):
        return {}
    names: dict[float, float] = {}
    cluster: list[float] = []
    for number in sorted(numbers):
        integers = [member for member in cluster if isinstance(member, int)]
        if cluster and _close(cluster[-1], number) and not (integers and isinstance(number, int)):
            cluster.append(number)
            names[number] = cluster[0]
        else:
            cluster = [number]
    return names


@dataclass(frozen=True)
class Difference:
    """How an answer differs from the gold on one database; `missing` and `extra` are rows."""

    missing: int
    extra: int
    columns_expected: int
    columns_given: int
    order_only: bool
    columns_only: bool

    def text(self) -> str:
        if self.columns_expected != self.columns_given:
            return f"wrong columns: {self.columns_given} instead of {self.columns_expected}"
        if self.order_only:
            return "wrong order"
        if self.columns_only:
            return "right columns, put together in wrong rows"
        return f"wrong rows: {self.missing} missing, {self.extra} extra"


def difference(expected: Expected, answer: Table) -> Difference:
    """Describe a mismatch; call it only if `same([expected], [answer])` is False."""
    if expected.width != answer.width:
        return Difference(expected.length, len(answer.rows), expected.width, answer.width, False, False)
    unified, table = _unified(expected, answer)
    wanted = Counter(row for segment in unified.segments for row in segment.rows)
    strange = sum((Counter(table.rows) - wanted).values())
    missing = max(0, expected.length - (len(table.rows) - strange))
    # Any of the rows that tie may come, but no more of them than the gold takes.
    extra = len(table.rows) - expected.length + missing
    loose = Expected(unified.width, (Segment(list(wanted.elements()), unified.length),))
    bag = same([loose], [table])
    mixed = not bag and missing == extra and _columns_fit(loose, table)
    return Difference(missing, extra, expected.width, answer.width, bag, mixed)


def _columns_fit(expected: Expected, answer: Table) -> bool:
    """Whether the table has several columns and each one alone is right."""
    return expected.width > 1 and all(_fits([(expected, answer)], [i], [i]) for i in range(expected.width))
