#!/usr/bin/env python3
"""Compare two verdicts of the same experiment, field by field.

    launcher submit sql --target local --profile smoke --store A -o json > before.json   # one version
    launcher submit sql --target local --profile smoke --store B -o json > after.json    # another version
    python tools/compare_results.py before.json after.json

Every value that the first verdict holds must be equal in the second, measured times and memory excepted. Keys that
only the second one has are listed. Exits with 1 if a value differs or is missing. Needs only the standard library.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Fields that every run measures again.
_MEASURED = re.compile(
    r"^\.(receipt|costs)\b.*(seconds|peak_memory_bytes|_usd|usd|measured_in|versions)|^\.costs\b.*usd|\.latency"
)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every scalar of a JSON document with its path; empty lists and objects count as values."""
    if isinstance(value, dict) and value:
        for name, one in value.items():
            yield from leaves(one, f"{path}.{name}")
    elif isinstance(value, list) and value:
        for index, one in enumerate(value):
            yield from leaves(one, f"{path}[{index}]")
    else:
        yield path, value


def compare(before: Any, after: Any) -> tuple[list[str], list[str], int, int]:
    """Differences, paths that only `after` has, the number of equal fields and of measured ones."""
    first, second = dict(leaves(before)), dict(leaves(after))
    different, equal, measured = [], 0, 0
    for path, value in first.items():
        if _MEASURED.search(path):
            measured += 1
        elif path not in second:
            different.append(f"{path}: {value!r} is missing")
        elif second[path] != value:
            different.append(f"{path}: {value!r} became {second[path]!r}")
        else:
            equal += 1
    return different, [path for path in second if path not in first], equal, measured


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    options = parser.parse_args()
    different, added, equal, measured = compare(
        json.loads(options.before.read_bytes()), json.loads(options.after.read_bytes())
    )
    for line in different:
        print(f"different  {line}")
    for path in added:
        print(f"added      {path}")
    print(
        f"{equal} fields are equal, {len(different)} differ, {len(added)} were added, {measured} are measurements"
    )
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
