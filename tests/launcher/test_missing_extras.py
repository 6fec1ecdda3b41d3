"""A command whose optional package is not installed names the extra to install."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from launcher.cli.errors import EXTRAS

ROOT = Path(__file__).parent.parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("bpe_openai", ["data", "sql", "--out", "out"]),
        ("starlette", ["rehearse", "--state", "state", "--model", "m=."]),
    ],
)
def test_a_missing_package_is_unsupported_with_the_pip_command(
    tmp_path: Path, package: str, arguments: list[str]
) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        f"from launcher.cli.main import main; sys.exit(main({arguments!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (21, ""), done.stderr
    assert done.stderr == (
        f"error: launcher {arguments[0]}: package '{package}' is not installed\n"
        "next: pip install 'tuneyard[jobs]'\n"
    )


def test_every_package_of_an_extra_is_known() -> None:
    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[\[<>=!;, ]", one)[0] for one in requirements} - {"tuneyard"}

    importable: dict[str, set[str]] = {}
    for package, distributions in metadata.packages_distributions().items():
        for distribution in distributions:
            importable.setdefault(distribution.lower().replace("_", "-"), set()).add(package)
    extras = PYPROJECT["optional-dependencies"]
    for extra in ("score", "hosted", "jobs"):
        for distribution in names(extras[extra]) - names(PYPROJECT["dependencies"]):
            known = importable.get(distribution, set()) & EXTRAS.keys()
            assert known, f"{distribution} of tuneyard[{extra}] is missing from EXTRAS"
            assert extra in {EXTRAS[package] for package in known}, distribution
