"""Modules that a command line loads. Imports between rooms are held by the contracts in pyproject.toml."""

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


def test_no_module_is_named_utils() -> None:
    words = {"utils", "util", "helpers", "common", "misc"}
    assert [
        path for path in [*LAUNCHER, *JOBS] if words & set(path.relative_to(ROOT).with_suffix("").parts)
    ] == []


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


def test_help_loads_no_package_but_click() -> None:
    code = """
import contextlib, io
from launcher.cli.main import main
with contextlib.redirect_stdout(io.StringIO()) as shown:
    assert main(["--help"]) == 0
assert "submit" in shown.getvalue()"""
    assert not loaded_after(code) & {"pydantic", "rich", "yaml", "asyncio", "jobs", "boto3", *HEAVY}


def test_verbs_of_the_launcher_load_no_package_of_an_extra() -> None:
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


def test_the_help_of_verbs_in_jobs_loads_no_package_of_an_extra() -> None:
    code = """
import contextlib, io
from launcher.cli.main import main
for verb in ("data", "score", "rehearse", "verify"):
    with contextlib.redirect_stdout(io.StringIO()):
        assert main([verb, "--help"]) == 0"""
    assert not loaded_after(code) & {"bpe_openai", "openai", "starlette", "uvicorn", *HEAVY}


@pytest.mark.parametrize("kind", ["prepare", "score", "report"])
def test_stages_that_need_no_gpu_never_import_torch(kind: str) -> None:
    modules = [module_name(path) for path in JOBS if path.relative_to(ROOT / "jobs").parts[0] == kind]
    assert f"jobs.{kind}.stage" in modules
    code = "\n".join(f"import {module}" for module in ["jobs.stage", "jobs.__main__", *modules])
    assert not loaded_after(code) & {"torch", "transformers", "peft", "deepspeed"}
