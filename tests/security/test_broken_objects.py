"""A malformed object in a store costs its own run one line: no other run is hidden, and no command crashes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.cli.main import main

RECORDED = Path(__file__).parents[1] / "data" / "recorded_store"
#: Contents that replace a whole object.
DAMAGE = {
    "empty": b"",
    "list": b"[]",
    "null": b"null",
    "text": b'"x"',
    "object": b"{}",
    "deep": b"[" * 100_000,
    "not UTF-8": b"\xff\xfe{",
    "infinite": b"1e999",
    "number": b"7",
}
#: Values that replace the value of one key.
VALUES: tuple[Any, ...] = (7, "x", [1], None, 1e300, -5, {"a": 1})
RUN = "RUN"
COMMANDS = (
    ("list",),
    ("list", "-o", "json"),
    ("gc",),
    ("status", RUN),
    ("why", RUN),
    ("report", RUN),
    ("artifacts", RUN),
    ("verify", RUN, "--digests-only"),
)


def kind_of(path: Path) -> str:
    """Objects that differ only in run and stage are of one kind."""
    return "/".join(part if "-" not in part and len(part) < 40 else "*" for part in path.parts)


def objects() -> list[Path]:
    """One object of each kind, relative to the store."""
    found: dict[str, Path] = {}
    for path in sorted(RECORDED.rglob("*.json")):
        relative = path.relative_to(RECORDED)
        if relative.parts[0] == "runs" or path.name == "_SUCCESS.json":
            found.setdefault(kind_of(relative), relative)
    return list(found.values())


def wrong_values(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Copies of a document with one key's value replaced, at every depth; of a list the first element is searched."""
    if isinstance(value, list) and value:
        yield from ((what, [inner, *value[1:]]) for what, inner in wrong_values(value[0], f"{where}[0]"))
    if not isinstance(value, dict):
        return
    for name, inner in value.items():
        for wrong in VALUES:
            yield f"{where}.{name} is {wrong!r}", {**value, name: wrong}
        yield from (
            (what, {**value, name: changed}) for what, changed in wrong_values(inner, f"{where}.{name}")
        )


def damages(path: Path) -> Iterator[tuple[str, bytes]]:
    """The object with every wrong value of every key, one at a time."""
    for what, value in wrong_values(json.loads((RECORDED / path).read_bytes())):
        yield what, json.dumps(value).encode()


def runs_of(store: Path) -> list[str]:
    return sorted(path.name for path in (store / "runs").iterdir())


def check(path: Path, what: str, data: bytes, store: Path, capsys: pytest.CaptureFixture[str]) -> int:
    """Run every command on the store with one damaged object; returns how many commands ran."""
    target = store / path
    good = target.read_bytes()
    target.chmod(0o644)
    target.write_bytes(data)
    broken = path.parts[1] if path.parts[0] == "runs" else runs_of(store)[0]
    others = [run for run in runs_of(store) if run != broken]
    try:
        for command in COMMANDS:
            main([broken if word == RUN else word for word in command] + ["--store", str(store)])
            out, err = capsys.readouterr()
            where = f"{' '.join(command)}: {path} {what}: {out + err}"
            assert "report it" not in err, where
            assert "Traceback" not in err, where
            if command == ("list",):
                assert [run for run in others if run not in out] == [], where
    finally:
        target.write_bytes(good)
    return len(COMMANDS)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return Path(shutil.copytree(RECORDED, tmp_path / "store"))


def test_the_recorded_store_has_every_kind_of_object() -> None:
    names = {
        path.name if path.parts[0] != "runs" else "/".join(path.parts[4:-1]) or path.name
        for path in objects()
    }
    assert {
        "plan.json",
        "request.json",
        "outcome.json",
        "tries",
        "ends",
        "heartbeats",
        "verdict.json",
    } <= names
    assert {"receipt.json", "_SUCCESS.json"} <= names


@pytest.mark.parametrize("path", objects(), ids=kind_of)
def test_a_damaged_object_costs_its_run_one_line(
    path: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for what, data in DAMAGE.items():
        check(path, what, data, store, capsys)


@pytest.mark.faults
@pytest.mark.parametrize("path", objects(), ids=kind_of)
def test_a_wrong_value_in_any_key_costs_its_run_one_line(
    path: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sum(check(path, what, data, store, capsys) for what, data in damages(path)) > 0
