"""How the verbs that people start here tell of a failure: as all of the launcher's do."""

from __future__ import annotations

import sys

from launcher.outcome import DISPOSITIONS, Failure, Reason

#: What to do where only the reason is known: of a run one would say "submit again".
_ADVICE = {
    Reason.BAD_DATA: "correct what is listed, then give the same command again",
    Reason.MISSING_INPUT: "correct the path",
}


def tell(failure: Failure, verb: str) -> int:
    """Print the failure in the words of `launcher VERB` on stderr; the exit code for it."""
    step = failure.next_step
    if step == DISPOSITIONS[failure.reason].advice:
        step = (
            f"launcher {verb} --help" if failure.reason is Reason.USAGE else _ADVICE.get(failure.reason, step)
        )
    told = Failure(
        failure.reason, failure.what, where=failure.where, problems=failure.problems, next_step=step
    )
    print(f"error: {told.text()}", file=sys.stderr)
    return told.exit_code
