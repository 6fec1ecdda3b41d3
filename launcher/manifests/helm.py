"""Renders a chart with Helm: the chart's directory and values in, text out.

Uses the user's `helm` (HELM_BIN, then PATH) if there is one, else the SDK of the package `helm-python-sdk`, which
needs no binary; both give the same bytes. The chart is loaded for every rendering because the SDK's chart handles
are mutable. No cluster is contacted: both render as for a first installation, without hooks.
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
    """The manifests of `chart` as YAML documents, each under a `# Source:` line.

    Raises Failure(UNSUPPORTED) if there is no Helm, Failure(BAD_EXPERIMENT) with Helm's message if the chart
    rejects the values.
    """
    binary = find_binary()
    if binary is not None:
        return by_binary(binary, chart, release=release, namespace=namespace, values=values)
    return by_sdk(chart, release=release, namespace=namespace, values=values)


def find_binary() -> str | None:
    """The program that HELM_BIN names, or `helm` on PATH; None if there is neither. Raises Failure(USAGE)."""
    named = os.environ.get("HELM_BIN")
    if not named:
        return shutil.which("helm")
    found = shutil.which(named)
    if found is None:
        raise Failure(
            Reason.USAGE,
            "HELM_BIN is not a program",
            where=named,
            next_step="unset HELM_BIN to use Helm's SDK",
        )
    return found


def load_ahead() -> None:
    """Start loading the SDK in a thread if it will be needed.

    It is an 85 MB library with its own runtime, and loading it takes longer than rendering.
    """
    if not os.environ.get("HELM_BIN") and shutil.which("helm") is None:
        threading.Thread(target=_load_sdk, name="load-helm", daemon=True).start()


def _load_sdk() -> None:
    # An error is reported when the SDK is used.
    with contextlib.suppress(Exception):
        importlib.import_module("helm_python")


def by_binary(binary: str, chart: Path, *, release: str, namespace: str, values: dict[str, Any]) -> str:
    """Render with a helm program, version 3 or 4."""
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
            next_step="helm version, or unset HELM_BIN to use Helm's SDK",
        ) from None
    if done.returncode != 0:
        raise _rejected(done.stderr.removeprefix("Error: "), chart)
    return done.stdout


def by_sdk(chart: Path, *, release: str, namespace: str, values: dict[str, Any]) -> str:
    """Render with the SDK, by a client-side dry run of an installation."""
    try:
        import helm_python
    except Exception as error:  # the library raises its own exceptions if it cannot load
        raise Failure(
            Reason.UNSUPPORTED,
            f"neither a helm program nor Helm's SDK was found: {error}",
            next_step="install Helm (https://helm.sh), or pip install helm-python-sdk",
        ) from None
    try:
        with helm_python.Config(namespace=namespace, storage_driver="memory") as config:
            made = config.install(str(chart), release, values, namespace=namespace, dry_run="client")
    except helm_python.HelmError as error:
        raise _rejected(str(error), chart) from None
    # As the program trims its output.
    return str(made["manifest"]).strip() + "\n"


def _rejected(message: str, chart: Path) -> Failure:
    lines = tuple(line.strip() for line in message.splitlines() if line.strip())
    return Failure(
        Reason.BAD_EXPERIMENT,
        "Helm cannot render the chart",
        where=str(chart),
        problems=lines,
        next_step="correct the values that Helm names",
    )
