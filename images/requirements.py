"""Prints the requirements of extras of pyproject.toml, one per line, sorted.

`requirements.py pyproject.toml jobs -kubernetes` lists the extra `jobs` without the package `kubernetes`.

Images install dependencies from this list before the source is copied, so that a changed source reinstalls nothing.
Runs with Python 3.11 or newer and no packages.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def requirements(pyproject: Path, extras: list[str], without: list[str]) -> list[str]:
    """The base dependencies and those of `extras`, with the project's own extras resolved.

    Raises KeyError for an unknown extra, ValueError for a package in `without` that nothing requires.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    own = re.compile(rf"{re.escape(project['name'])}\[([^\]]+)\]")
    found = set(project["dependencies"])
    waiting = list(extras)
    while waiting:
        for requirement in project["optional-dependencies"][waiting.pop()]:
            if match := own.fullmatch(requirement):
                waiting += [name.strip() for name in match[1].split(",")]
            else:
                found.add(requirement)
    for package in without:
        named = {requirement for requirement in found if re.match(rf"{re.escape(package)}\b", requirement)}
        if not named:
            raise ValueError(f"nothing requires {package}")
        found -= named
    return sorted(found)


if __name__ == "__main__":
    wanted = sys.argv[2:]
    left_out = [name[1:] for name in wanted if name.startswith("-")]
    extras = [name for name in wanted if not name.startswith("-")]
    print("\n".join(requirements(Path(sys.argv[1]), extras, left_out)))
