"""The rehearsal server with the published openai package, current and previous major version."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from serving import Server

WALK = Path(__file__).with_name("sdk_walk.py")


def python_with_openai_2(cache: pytest.Cache) -> str:
    """A Python with openai 2.x: TUNEYARD_OPENAI2_PYTHON, else a virtual environment kept in the test cache."""
    if named := os.environ.get("TUNEYARD_OPENAI2_PYTHON"):
        return named
    directory = Path(str(cache.mkdir("openai2"))) / "venv"
    python = directory / "bin" / "python"
    if not (directory / ".installed").exists():
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(directory)], check=False)
        install = [str(python), "-m", "pip", "install", "--quiet", "openai>=2.54,<3"]
        if made.returncode or subprocess.run(install, check=False, timeout=300).returncode:
            pytest.skip("openai 2.x cannot be installed here: set TUNEYARD_OPENAI2_PYTHON")
        (directory / ".installed").touch()
    return str(python)


@pytest.mark.parametrize("major", [2, 3])
def test_unmodified_sdk_completes_the_protocol(
    make_server: Callable[..., Server], pytestconfig: pytest.Config, major: int
) -> None:
    import openai

    installed = int(openai.__version__.partition(".")[0])
    cache = pytestconfig.cache
    assert cache is not None
    if major == installed:
        python = sys.executable
    elif major == 2:
        python = python_with_openai_2(cache)
    else:
        pytest.skip(f"openai {installed} is installed here")
    server = make_server()
    done = subprocess.run(
        [python, str(WALK), server.url],
        env={**os.environ, "OPENAI_API_KEY": "sk-test-one"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["openai"].startswith(f"{major}.")
    assert seen["job"] == "succeeded"
    assert seen["control"] == ["paused", "resumed", "cancelled"]
    assert seen["batch"] == "completed"
