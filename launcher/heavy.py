"""Verbs that need the heavy side run it as a subprocess: the launcher itself never imports jobs."""

from __future__ import annotations

import subprocess
import sys


def run_jobs(arguments: list[str]) -> int:
    """`python -m jobs …` with this process's streams; returns its exit code."""
    return subprocess.run([sys.executable, "-m", "jobs", *arguments], check=False).returncode
