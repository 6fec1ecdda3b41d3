"""Verbs that need the heavy side run it as a subprocess: the launcher itself never imports jobs."""

from __future__ import annotations

import subprocess
import sys


def run_jobs(arguments: list[str], *, talk_only: bool = False) -> int:
    """`python -m jobs …` with this process's streams; returns its exit code.

    With `talk_only` all that it prints goes to stderr.
    """
    command = [sys.executable, "-m", "jobs", *arguments]
    return subprocess.run(command, check=False, stdout=sys.stderr if talk_only else None).returncode
