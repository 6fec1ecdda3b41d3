"""`python -m jobs`: the commands that the launcher, a stage or a pod starts as a process of its own.

`run` carries out one stage of a plan, `count` counts the tokens of its rows, `rehearse` is `launcher rehearse`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from jobs import stage
from jobs.runtime import pod
from launcher.outcome import Failure
from launcher.spec.plan import parse
from launcher.store import open_store
from launcher.store.runs import Attempt


def _run(arguments: list[str]) -> int:
    pod.make_directories()
    parser = argparse.ArgumentParser(prog="python -m jobs run", description="Carry out one stage of a plan.")
    parser.add_argument("--plan", required=True, type=Path)
    parser.add_argument("--stage", required=True)
    parser.add_argument("--store", required=True, help="file:///dir")
    parser.add_argument("--attempt", type=int, default=1)
    options = parser.parse_args(arguments)
    plan = parse(options.plan.read_bytes(), str(options.plan))
    store = open_store(options.store, patient=True)
    with pod.stored_log(Attempt(store, plan.run_id, options.attempt), options.stage):
        return stage.run_stage(plan, options.stage, store, options.attempt)


def _count(arguments: list[str]) -> int:
    from jobs.prepare import count

    return count.main(arguments)


def _rehearse(arguments: list[str]) -> int:
    from launcher.cli.main import main

    # The server's output goes to the log of a stage: an unexpected error is logged with its stack trace.
    os.environ.setdefault("TUNEYARD_TRACEBACK", "1")
    return main(["rehearse", *arguments])


_COMMANDS: dict[str, Callable[[list[str]], int]] = {"run": _run, "count": _count, "rehearse": _rehearse}


def main() -> int:
    name, arguments = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("", [])
    if name not in _COMMANDS:
        print(f"usage: python -m jobs {{{','.join(_COMMANDS)}}} …", file=sys.stderr)
        return 2
    try:
        return _COMMANDS[name](arguments)
    except Failure as failure:
        # Without the launcher's "error: ": it is a line of a stage's log.
        print(failure.text(), file=sys.stderr)
        return failure.exit_code


if __name__ == "__main__":
    sys.exit(main())
