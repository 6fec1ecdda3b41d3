"""`python -m jobs VERB`: the entry point of every stage, and of the launcher's heavy verbs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jobs import pod, stage, told
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
    store = open_store(options.store)
    with pod.stored_log(Attempt(store, plan.run_id, options.attempt), options.stage):
        return stage.run_stage(plan, options.stage, store, options.attempt)


def _score(arguments: list[str]) -> int:
    from jobs.score import command

    return command.main(arguments)


def _data(arguments: list[str]) -> int:
    from jobs.prepare import command

    return command.main(arguments)


def _count(arguments: list[str]) -> int:
    from jobs.prepare import count

    return count.main(arguments)


def _rehearse(arguments: list[str]) -> int:
    from jobs.rehearsal import command

    return command.main(arguments)


def _verify(arguments: list[str]) -> int:
    from jobs import verify

    return verify.main(arguments)


_VERBS = {
    "verify": _verify,
    "rehearse": _rehearse,
    "run": _run,
    "score": _score,
    "data": _data,
    "count": _count,
}


def main() -> int:
    verb, arguments = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("", [])
    if verb not in _VERBS:
        print(f"usage: python -m jobs {{{','.join(_VERBS)}}} …", file=sys.stderr)
        return 2
    try:
        return _VERBS[verb](arguments)
    except Failure as failure:
        if verb in ("rehearse", "verify"):
            return told.tell(failure, verb)
        print(failure.text(), file=sys.stderr)
        return failure.exit_code


if __name__ == "__main__":
    sys.exit(main())
