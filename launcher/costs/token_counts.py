"""A plan's rows read and counted before anything runs, by the heavy side in a subprocess."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from launcher.costs.estimate import TokenCounts
from launcher.outcome import DISPOSITIONS, Failure, Reason
from launcher.spec.plan import Plan

_TIMEOUT_S = 120


def count_tokens(plan: Plan, locations: dict[str, Path]) -> TokenCounts | None:
    """Exact counts of the rows that `prepare` would make; `locations` says where files lie, by digest.

    None where data or heavy side are not here. Raises Failure(BAD_DATA), as `prepare` would, for data that
    cannot be used.
    """
    prepare = plan.stage("prepare")
    if prepare.needs or not set(prepare.inputs.values()) <= locations.keys():
        return None  # it is downloaded first, or lies elsewhere
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
        raise _told(done.stderr.decode(errors="replace"), _root(named))
    if done.returncode != 0:
        return None
    return TokenCounts(**json.loads(done.stdout))


def _root(named: dict[str, str]) -> str:
    """The directory in which the data lies; '' for the sample, which lies in none."""
    return next((location.removesuffix(f"/{name}") for name, location in named.items()), "")


def _told(text: str, root: str) -> Failure:
    """The heavy side's message as a Failure again: `Failure.text` read backwards."""
    head, *lines = text.strip().splitlines() or ["the data cannot be used"]
    # It has read the files through links in a directory of its own, which is gone: the user's is named.
    what = re.sub(rf"^{re.escape(tempfile.gettempdir())}/[^/:]+: ", "", head)
    next_steps = [line.removeprefix("next: ") for line in lines if line.startswith("next: ")]
    return Failure(
        Reason.BAD_DATA,
        what,
        where=root,
        problems=tuple(line.strip() for line in lines if line.startswith("  ")),
        next_step="".join(next_steps[:1]),
    )
