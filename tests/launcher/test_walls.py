"""Imports go one way, and the light side stays light."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

import launcher

ROOT = Path(launcher.__file__).parents[1]
LAUNCHER = sorted((ROOT / "launcher").rglob("*.py"))
JOBS = sorted((ROOT / "jobs").rglob("*.py"))
HEAVY = (
    "torch",
    "transformers",
    "peft",
    "deepspeed",
    "safetensors",
    "gguf",
    "numpy",
    "sqlglot",
    "apsw",
    "huggingface_hub",
)

#: Who may import whom, from the ground up: a layer knows only the layers before it.
LAYERS = [
    {"outcome"},
    {"documents"},
    {"experiment", "store", "hub"},
    {"stages", "catalog"},
    {"lock", "site"},
    {"plan", "resolve"},
    {
        "results",
        "hosted",
        "estimate",
        "counting",
        "heavy",
        "placement",
        "chart_values",
        "pod_fields",
        "overlay",
        "helm",
    },
    {"render"},
    {"runs"},
    {"accounting"},
    {"budget", "receipt", "verdict", "conductor", "lifecycle"},
    {"closing"},
    {"local", "cluster"},
    {"submission"},
    {"targets"},
    {"cli"},
]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def imports(path: Path) -> frozenset[str]:
    """Modules that a file imports, lazily too, as `package.module` and `package.module.name`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def tops(names: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def layer(module: str) -> int | None:
    part = module.split(".")[1] if "." in module else ""
    return next((number for number, names in enumerate(LAYERS) if part in names), None)


@pytest.mark.parametrize("path", LAUNCHER, ids=module_name)
def test_the_launcher_imports_nothing_heavy_and_never_jobs(path: Path) -> None:
    assert not tops(imports(path)) & {"jobs", "openai", *HEAVY}


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("boto3", ["launcher/store"]),
        ("botocore", ["launcher/store"]),
        # pod_fields reads what the client's models are made of, and asks nobody.
        ("kubernetes", ["launcher/cluster", "launcher/pod_fields.py"]),
    ],
)
def test_a_remote_service_has_one_place(library: str, homes: list[str]) -> None:
    users = [path for path in [*LAUNCHER, *JOBS] if library in tops(imports(path))]
    assert [path for path in users if not any(path.is_relative_to(ROOT / home) for home in homes)] == []


def test_only_tune_predict_and_rehearsal_know_the_openai_client() -> None:
    users = {path.relative_to(ROOT / "jobs").parts[0] for path in JOBS if "openai" in tops(imports(path))}
    assert users <= {"tune", "predict", "hosted", "rehearsal"}


@pytest.mark.parametrize("path", LAUNCHER, ids=module_name)
def test_inside_the_launcher_imports_go_one_way(path: Path) -> None:
    own = layer(module_name(path))
    if own is None:
        assert module_name(path) in ("launcher", "launcher.__main__"), f"{path} is in no layer of this test"
        return
    for name in imports(path):
        other = layer(name) if name.startswith("launcher.") else None
        if other is not None and name.split(".")[1] != module_name(path).split(".")[1]:
            assert other <= own, f"{module_name(path)} imports {name}"


def test_no_module_is_called_utils() -> None:
    words = {"utils", "util", "helpers", "common", "misc"}
    assert [
        path for path in [*LAUNCHER, *JOBS] if words & set(path.relative_to(ROOT).with_suffix("").parts)
    ] == []


def test_jobs_know_nothing_of_how_they_are_started() -> None:
    denied = {"cli", "conductor", "local", "cluster", "helm", "submission", "render", "resolve", "site"}
    for path in JOBS:
        assert not {n.split(".")[1] for n in imports(path) if n.startswith("launcher.")} & denied, path


def loaded_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
        check=True,
    )
    return tops(set(done.stdout.splitlines()[-1].split()))


def test_help_loads_neither_pydantic_nor_rich_nor_anything_heavy() -> None:
    code = """
import contextlib, io
from launcher.cli.main import main
sys.argv = ["launcher", "--help"]
with contextlib.redirect_stdout(io.StringIO()) as shown:
    assert main() == 0
assert "submit" in shown.getvalue()"""
    assert not loaded_after(code) & {"pydantic", "rich", "yaml", "asyncio", "jobs", "boto3", *HEAVY}


def test_the_verbs_load_nothing_heavy() -> None:
    verbs = [
        "plan",
        "render",
        "submit",
        "status",
        "logs",
        "why",
        "list",
        "report",
        "cancel",
        "retry",
        "doctor",
    ]
    code = f"import launcher.cli.main as m\nfor verb in {verbs}: m.cli.get_command(None, verb)"
    assert not loaded_after(code) & {"jobs", "boto3", "kubernetes", *HEAVY}


@pytest.mark.parametrize("kind", ["prepare", "score", "report"])
def test_stages_that_need_no_gpu_never_import_torch(kind: str) -> None:
    modules = [module_name(path) for path in JOBS if path.relative_to(ROOT / "jobs").parts[0] == kind]
    assert f"jobs.{kind}.stage" in modules
    code = "\n".join(f"import {module}" for module in ["jobs.stage", "jobs.__main__", *modules])
    assert not loaded_after(code) & {"torch", "transformers", "peft", "deepspeed"}


@pytest.mark.parametrize("kind", ["prepare", "score", "report"])
def test_nor_do_they_import_it_later(kind: str) -> None:
    for path in JOBS:
        if path.relative_to(ROOT / "jobs").parts[0] == kind:
            assert not tops(imports(path)) & {"torch", "transformers", "peft", "deepspeed"}, path
