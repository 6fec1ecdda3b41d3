"""The only place that calls Helm: a chart's directory and values in, rendered text out.

The user's own `helm` renders where there is one (HELM_BIN, then PATH), else the SDK from PyPI's
`helm-python-sdk`, which needs no binary. Both give the same bytes; tests/render holds them to it.
The chart is loaded anew for every rendering, because the SDK's chart handles are mutable. No cluster
is asked: both render as for a first installation, without hooks.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

from launcher.outcome import Failure, Reason

_TIMEOUT_S = 60


def template(chart: Path, *, release: str, namespace: str, values: dict[str, Any]) -> str:
    """The manifests of `chart`, one YAML document after the other, each under a `# Source:` line.

    Raises Failure(UNSUPPORTED) where there is no Helm at all, Failure(BAD_EXPERIMENT) with Helm's own
    words where the chart refuses the values.
    """
    binary = find_binary()
    if binary is not None:
        return by_binary(binary, chart, release=release, namespace=namespace, values=values)
    return by_sdk(chart, release=release, namespace=namespace, values=values)


def find_binary() -> str | None:
    """The user's helm: HELM_BIN, which must then be one, or `helm` on PATH; None where there is neither."""
    named = os.environ.get("HELM_BIN")
    if not named:
        return shutil.which("helm")
    found = shutil.which(named)
    if found is None:
        raise Failure(
            Reason.USAGE,
            "HELM_BIN names no program",
            where=named,
            next_step="unset HELM_BIN: the launcher brings Helm's SDK along",
        )
    return found


def load_ahead() -> None:
    """Start loading the SDK, where it will be needed, beside whatever the caller does next.

    It is a library of 85 MB with a runtime of its own, whose start takes longer than all the rendering.
    """
    if not os.environ.get("HELM_BIN") and shutil.which("helm") is None:
        threading.Thread(target=_load_sdk, name="load-helm", daemon=True).start()


def _load_sdk() -> None:
    # Whatever is wrong with it is said where it is needed.
    with contextlib.suppress(Exception):
        importlib.import_module("helm_python")


def by_binary(binary: str, chart: Path, *, release: str, namespace: str, values: dict[str, Any]) -> str:
    """Rendered by a helm program, version 3 or 4."""
    command = [
        binary,
        "template",
        release,
        str(chart),
        "--namespace",
        namespace,
        "--no-hooks",
        "--values",
        "-",
    ]
    try:
        done = subprocess.run(
            command, input=json.dumps(values), capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(
            Reason.UNSUPPORTED,
            f"helm cannot be run: {error}",
            where=binary,
            next_step="helm version, or unset HELM_BIN: the launcher brings Helm's SDK along",
        ) from None
    if done.returncode != 0:
        raise _refused(done.stderr.removeprefix("Error: "), chart)
    return done.stdout


def by_sdk(chart: Path, *, release: str, namespace: str, values: dict[str, Any]) -> str:
    """Rendered by the SDK: a dry run of an installation, on the client alone."""
    try:
        import helm_python
    except Exception as error:  # the library tells of its own troubles by exceptions of its own
        raise Failure(
            Reason.UNSUPPORTED,
            f"there is neither a helm program nor Helm's SDK: {error}",
            next_step="install Helm (https://helm.sh), or pip install helm-python-sdk",
        ) from None
    try:
        with helm_python.Config(namespace=namespace, storage_driver="memory") as config:
            made = config.install(str(chart), release, values, namespace=namespace, dry_run="client")
    except helm_python.HelmError as error:
        raise _refused(str(error), chart) from None
    # The program trims what it prints as well.
    return str(made["manifest"]).strip() + "\n"


def _refused(words: str, chart: Path) -> Failure:
    lines = tuple(line.strip() for line in words.splitlines() if line.strip())
    return Failure(
        Reason.BAD_EXPERIMENT,
        "Helm cannot render the chart",
        where=str(chart),
        problems=lines,
        next_step="correct the values that are named",
    )
