"""Source `directory`: a model from outside inputs in the store, each stored under its digest."""

from __future__ import annotations

import os
import shutil

from jobs.fetch.model_files import is_model_file
from jobs.stage import StageContext
from launcher.outcome import Failure, Reason


def fetch(context: StageContext) -> None:
    """Copy the model files among `context.stage.inputs` to `context.out`; ignore other files."""
    names = sorted(name for name in context.stage.inputs if is_model_file(name))
    if not names:
        given = ", ".join(sorted(context.stage.inputs)) or "nothing"
        raise Failure(Reason.NO_SUCH_MODEL, f"no model file among the inputs ({given})")
    for done, name in enumerate(names):
        context.heartbeat(done, len(names), "files")
        source, target = context.outside(name), context.out / name
        try:
            # Inputs are immutable, so a hard link is enough.
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
