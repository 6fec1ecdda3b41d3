"""Runs commands; a failed one becomes a Failure."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys

from launcher.outcome import Failure, Reason

_SHOWN_LINES = 30


def run(command: list[str], *, environment: dict[str, str] | None = None) -> None:
    """Run to the end without output. Raises Failure(INTERNAL) after printing the last lines of a failed command."""
    output(command, environment=environment, merged=True)


def output(command: list[str], *, environment: dict[str, str] | None = None, merged: bool = False) -> str:
    """The command's stdout, stripped; with `merged`, stderr too."""
    result = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merged else subprocess.PIPE,
        text=True,
        env=environment,
    )
    if result.returncode:
        said = (result.stdout + (result.stderr or "")).splitlines()[-_SHOWN_LINES:]
        print("\n".join(said), file=sys.stderr)
        what = f"{shlex.join(command[:3])} … ended with code {result.returncode}"
        raise Failure(Reason.INTERNAL, what, where="images")
    return result.stdout.strip()


def require(*programs: str) -> None:
    """Raises Failure(USAGE) naming the programs that are not installed, and the command that installs them."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise Failure(
            Reason.USAGE,
            f"not installed: {', '.join(missing)}",
            where="images",
            next_step=f"apt-get install {' '.join(missing)}",
        )
