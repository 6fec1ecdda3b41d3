"""Token counts of a plan's rows before anything runs, computed by `python -m jobs count` in a subprocess."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from launcher.costs.estimate import TokenCounts
from launcher.outcome import DISPOSITIONS, Failure, Reason
from launcher.spec.plan import Plan
from launcher.spec.tasks import INPUT_PREFIX

_TIMEOUT_S = 120


def count_tokens(plan: Plan, locations: Mapping[str, Path]) -> TokenCounts | None:
    """Exact counts of the rows that `prepare` would make; `locations` maps digests of inputs to local files.

    None if the data is not on this machine or `jobs` is not installed. Raises Failure(BAD_DATA), as `prepare`
    would, for data that cannot be used.
    """
    prepare = plan.stage("prepare")
    if any(name.startswith(INPUT_PREFIX) for name in prepare.inputs):
        return None  # a plan runs no code of the user's
    if prepare.needs or not set(prepare.inputs.values()) <= locations.keys():
        return None
    with tempfile.TemporaryDirectory() as directory:
        request = Path(directory) / "request.json"
        named = {name: str(locations[sha256]) for name, sha256 in prepare.inputs.items()}
        request.write_text(json.dumps({"settings": prepare.settings, "locations": named}))
        try:
            done = subprocess.run(
                [sys.executable, "-m", "jobs", "count", str(request)],
                capture_output=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None
    if done.returncode == DISPOSITIONS[Reason.BAD_DATA].exit_code:
        raise Failure.from_message(done.stdout)
    if done.returncode != 0:
        return None
    return TokenCounts(**json.loads(done.stdout))
