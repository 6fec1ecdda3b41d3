"""The images hold this checkout's code, not that of an earlier build in a cache."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import launcher

from .pods import Namespace, restricted_pod

pytestmark = pytest.mark.cluster

#: Prints a digest over every module of both packages, wherever they are installed.
DIGEST = """
import hashlib, importlib.util, pathlib
digest = hashlib.sha256()
for package in ("jobs", "launcher"):
    root = pathlib.Path(importlib.util.find_spec(package).origin).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
print(digest.hexdigest())
"""


@pytest.mark.parametrize("name", ["conductor", "worker", "trainer"])
def test_an_image_holds_the_code_of_this_checkout(
    namespace: Namespace, project_images: dict[str, str], name: str
) -> None:
    root = Path(launcher.__file__).parents[1]
    here = subprocess.run(
        [sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True, cwd=root
    )
    pod = restricted_pod(name, project_images[name], DIGEST)
    pod["spec"]["containers"][0]["command"] = ["tini", "--", "python", "-c", DIGEST]
    assert namespace.output(pod) == here.stdout
