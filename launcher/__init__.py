"""Tuneyard: tune an open model on your own GPUs, or pay for a hosted one?

The Python API makes the same calls as the command line:

    from launcher import load, submit

    run = submit(load("sql"), target="local")
    run.wait()
    print(run.verdict["summary"])

Importing this package imports nothing heavy; names are loaded from `launcher.api` when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from launcher.api import Run, load, make_plan, submit

__all__ = ["Run", "load", "make_plan", "submit"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'launcher' has no attribute '{name}'")
    from launcher import api

    return getattr(api, name)
