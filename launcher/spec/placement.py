"""The same run on other machines: more memory, another GPU count. Pure.

Placement is not hashed, so a plan with another placement names the same run and keeps what is finished.
"""

from __future__ import annotations

import copy

from launcher.outcome import Failure, Reason
from launcher.spec.documents import assign
from launcher.spec.loading import validate
from launcher.spec.lock import Lock
from launcher.spec.plan import Plan
from launcher.spec.planner import plan
from launcher.spec.stages import VERSIONS


def placed(given: Plan, sets: tuple[str, ...]) -> Plan:
    """`given` with `path=value` overrides of its experiment.

    Raises Failure(BAD_EXPERIMENT) with all problems, Failure(USAGE) if they would change what is asked,
    Failure(VERSION_MISMATCH) if another version of the launcher made the plan.
    """
    document, problems = copy.deepcopy(given.experiment), []
    for assignment in sets:
        try:
            assign(document, assignment)
        except ValueError as error:
            problems.append(f"--set {assignment}: {error}")
    experiment = validate(document, where=given.run_id, problems=problems)
    made = plan(experiment, Lock.model_validate_json(Lock.model_validate(given.lock).model_dump_json()))
    if made.run_id != given.run_id:
        raise _another_run(given, made, sets)
    return made


def _another_run(given: Plan, made: Plan, sets: tuple[str, ...]) -> Failure:
    changed = {
        s.kind: f"{s.kind}: version {s.version}, now {VERSIONS[s.kind]}"
        for s in given.stages
        if s.version != VERSIONS[s.kind]
    }
    if changed or not sets:
        return Failure(
            Reason.VERSION_MISMATCH,
            f"another version of the launcher planned this run; this one makes {made.run_id} of it",
            where=given.run_id,
            problems=tuple(changed.values()),
            next_step="submit the experiment again",
        )
    return Failure(
        Reason.USAGE,
        f"{', '.join(sets)} changes what is asked, not only where it runs: that is another run ({made.run_id})",
        where=given.run_id,
        next_step="submit the experiment with it",
    )
