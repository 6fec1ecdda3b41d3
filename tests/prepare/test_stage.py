"""The stage prepare, from a plan: committed outputs, equal on every run."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import data_sets
import pytest

from jobs import stage
from jobs.tasks.rows import Row, read_rows
from jobs.tasks.viggo.prompt import make_row
from launcher.outcome import Reason
from launcher.spec.plan import Plan, Stage, stage_key
from launcher.spec.stages import VERSIONS, HubData, PrepareSettings, StageKind
from launcher.store import DirectoryArtifact, DirectoryStore


def one_stage(
    kind: StageKind, settings: dict[str, Any], inputs: dict[str, str], needs: dict[str, Stage]
) -> Stage:
    keys = {role: needed.key for role, needed in needs.items()}
    return Stage(
        name=kind,
        kind=kind,
        version=VERSIONS[kind],
        key=stage_key(kind, VERSIONS[kind], settings, inputs, keys),
        needs={role: needed.name for role, needed in needs.items()},
        inputs=inputs,
        settings=settings,
    )


def prepare(
    store: DirectoryStore, task: str, inputs: dict[str, Path], fetched: Path | None = None, **data: Any
) -> tuple[int, DirectoryArtifact | None]:
    """Run the stage on outside files (name -> path) or on a directory that a fetch stage committed."""
    digests = {name: store.put_input(path) for name, path in inputs.items()}
    needs: dict[str, Stage] = {}
    if fetched is not None:
        source = HubData(repository="a/b", revision="c", files=("x",)).model_dump(mode="json")
        needs["source"] = one_stage("fetch", {"source": source}, {}, {})
        store.commit(f"stages/{needs['source'].key}", fetched, {})
    settings = PrepareSettings.model_validate({"task": task, "data": data}).model_dump(mode="json")
    made = one_stage("prepare", settings, digests, needs)
    plan = Plan(run_id="test-00000000", experiment={}, lock={}, stages=(*needs.values(), made))
    code = stage.run_stage(plan, "prepare", store, 1)
    return code, store.open(f"stages/{made.key}") if code == 0 else None


def below(directory: Path) -> dict[str, Path]:
    """Outside inputs as a plan names them: the direct layout."""
    return {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


def test_prepare_writes_parts_uploads_databases_and_a_card(
    store: DirectoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    _, artifact = prepare(store, "sql", {}, source="sample", train_rows=24, validation_rows=4, test_rows=8)
    assert artifact is not None
    root = artifact.directory()
    files = set(artifact.manifest.files)
    assert {"train.jsonl", "validation.jsonl", "test.jsonl", "card.json"} < files
    assert {"upload/train.jsonl", "upload/validation.jsonl"} < files
    for row in read_rows(root / "test.jsonl"):
        assert row.fields["database"] in files
    card = json.loads((root / "card.json").read_text())
    assert [card["parts"][part]["rows"] for part in ("train", "validation", "test")] == [24, 4, 8]
    assert card["parts"]["test"]["sha256"] == artifact.manifest.files["test.jsonl"].sha256
    assert card["uploads"]["train"]["sha256"] == artifact.manifest.files["upload/train.jsonl"].sha256
    assert card["leakage"]["test in train"]["database"] == 0
    assert card["faults"] == []
    assert artifact.manifest.meta["training_tokens"] == card["parts"]["train"]["training_tokens"]
    assert "row 36/36" in capsys.readouterr().out


def test_the_same_settings_give_the_same_files_in_another_store(tmp_path: Path) -> None:
    manifests = []
    for name in ("one", "two"):
        store = DirectoryStore(tmp_path / name)
        code, artifact = prepare(store, "sql", {}, source="sample", train_rows=12, test_rows=6)
        assert (code, artifact is not None) == (0, True)
        assert artifact is not None
        manifests.append(artifact.manifest.files)
    assert manifests[0] == manifests[1]


def test_spiders_databases_are_copied(store: DirectoryStore, tmp_path: Path) -> None:
    inputs = below(data_sets.write_spider(tmp_path / "data"))
    _, artifact = prepare(store, "sql", inputs, source="spider", validation_rows=3)
    assert artifact is not None
    rows = [r for p in ("train", "validation", "test") for r in read_rows(artifact.path(f"{p}.jsonl"))]
    named = {row.fields["database"] for row in rows}
    assert named - {None} == {name for name in artifact.manifest.files if name.startswith("databases/")}
    assert len(named) == 14
    assert "databases/shop_2.sqlite" in named
    connection = sqlite3.connect(artifact.path("databases/shop_2.sqlite"))
    assert connection.execute("SELECT Name FROM shop").fetchall() == [("One",)]
    connection.close()


@pytest.mark.parametrize(
    ("task", "source", "write"),
    [
        ("sql", "spider-create-context", data_sets.write_spider_create_context),
        ("viggo", "viggo", data_sets.write_viggo),
        ("chat", "chat", data_sets.write_chat),
    ],
)
def test_outside_files_and_a_fetched_directory_give_the_same(
    store: DirectoryStore, tmp_path: Path, task: str, source: str, write: Any
) -> None:
    _, pushed = prepare(store, task, below(write(tmp_path / "data")), source=source, train_rows=6)
    _, fetched = prepare(store, task, {}, fetched=write(tmp_path / "fetched"), source=source, train_rows=6)
    assert pushed is not None
    assert fetched is not None
    assert pushed.manifest.files == fetched.manifest.files
    assert len(read_rows(pushed.path("train.jsonl"))) == 6


def test_rows_name_the_task_that_prepared_them_whatever_its_source_wrote(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def row_of_another_task(row_id: str, *, target: str, meaning: str) -> Row:
        return replace(
            make_row(row_id, target=target, meaning=meaning), fields={"task": "sql", "target": target}
        )

    monkeypatch.setattr("jobs.tasks.viggo.source.make_row", row_of_another_task)
    directory = data_sets.write_viggo(tmp_path / "data")
    _, artifact = prepare(store, "viggo", below(directory), source="viggo")
    assert artifact is not None
    assert {row.fields["task"] for row in read_rows(artifact.path("test.jsonl"))} == {"viggo"}


def test_bad_data_ends_with_its_exit_code_and_commits_nothing(
    store: DirectoryStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = data_sets.write_chat(tmp_path / "data")
    (directory / "test.jsonl").write_text("")
    code, _ = prepare(store, "chat", below(directory), source="chat")
    assert code == 11
    said = capsys.readouterr().err
    assert "data of source 'chat': 1 problem in the data" in said
    assert "test.jsonl: has no rows" in said
    assert Reason.BAD_DATA.value == "bad-data"
    assert "Traceback" not in said
    assert store.list("stages") == []


def test_a_broken_database_is_bad_data(
    store: DirectoryStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = data_sets.write_spider(tmp_path / "data")
    (directory / "database" / "shop_5" / "shop_5.sqlite").write_bytes(b"not a database at all")
    code, _ = prepare(store, "sql", below(directory), source="spider")
    assert code == 11
    assert "shop_5.sqlite: not an SQLite database" in capsys.readouterr().err


def test_preparing_never_imports_torch() -> None:
    program = (
        "import sys, jobs.prepare.stage, jobs.prepare.command, jobs.tasks.prompts\n"
        "print([m for m in ('torch', 'transformers', 'sqlglot', 'boto3') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
