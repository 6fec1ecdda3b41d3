"""The detached conductor's process: `python -m launcher.targets.local STORE RUN ATTEMPT`."""

from __future__ import annotations

import argparse
import sys

from launcher.outcome import Failure
from launcher.store import open_store
from launcher.targets.local.conductor_main import conduct


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m launcher.targets.local", description="Conduct one attempt at a local run."
    )
    parser.add_argument("store")
    parser.add_argument("run_id")
    parser.add_argument("attempt", type=int)
    arguments = parser.parse_args()
    try:
        return conduct(open_store(arguments.store, patient=True), arguments.run_id, arguments.attempt)
    except Failure as failure:
        print(failure.text(), file=sys.stderr)
        return failure.exit_code


if __name__ == "__main__":
    sys.exit(main())
