"""docs/architecture.md and CONTRIBUTING.md name what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def rooms(package: str) -> list[str]:
    return sorted(path.parent.name for path in (ROOT / package).glob("*/__init__.py"))


@pytest.mark.parametrize("package", ["launcher", "jobs"])
def test_every_room_is_in_the_picture(package: str) -> None:
    picture = ARCHITECTURE.partition("## The rooms")[2].partition("## ")[0]
    below = picture.partition(f"\n{package}/")[2]
    assert rooms(package)
    assert [room for room in rooms(package) if not re.search(rf"\b{room}\b", below)] == []


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_files_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:launcher|jobs|tests|docs|tools|charts|k8s|images)/[\w./-]+)`", text)
    wanted = {name for name in named if not re.search(r"NAME|KIND|VERB", name)}
    assert wanted
    assert [name for name in sorted(wanted) if not (ROOT / name).exists()] == []
