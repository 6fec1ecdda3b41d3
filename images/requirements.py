"""What an extra of pyproject.toml requires, one requirement a line, sorted.

`requirements.py pyproject.toml jobs -kubernetes` lists the extra `jobs`, without a package
that the image never imports.

Dependencies are installed from this list before the source is there, so that a changed source
installs nothing anew. Runs with any Python from 3.11 on and nothing installed.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def requirements(pyproject: Path, extras: list[str], without: list[str]) -> list[str]:
    """The base dependencies and those of `extras`, with the project's own extras resolved.

    Raises KeyError for an extra, and ValueError for a package in `without`, that is not there.
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
