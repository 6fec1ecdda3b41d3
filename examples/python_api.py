"""The Python API: load an experiment, look at its plan, run it and read the verdict.

python examples/python_api.py            runs the smallest profile of the built-in experiment `sql`
python examples/python_api.py DIRECTORY  keeps the artifacts in DIRECTORY
"""

from __future__ import annotations

import sys

from launcher import load, make_plan, submit


def main(store: str | None = None) -> None:
    experiment = load("sql", profile="smoke")
    plan = make_plan(experiment)
    print(f"{plan.run_id}: {len(plan.stages)} stages, {', '.join(stage.name for stage in plan.stages)}")
    run = submit(experiment, target="local", store=store)
    run.wait()
    assert run.verdict is not None
    print(run.verdict["summary"])


if __name__ == "__main__":
    main(*sys.argv[1:2])
