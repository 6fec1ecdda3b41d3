"""`launcher verify`: is everything a run claims still true?"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import click

from launcher.cli.options import output_option, store_options
from launcher.cli.show import emit, table
from launcher.heavy import run_jobs
from launcher.outcome import DISPOSITIONS, Failure, Reason
from launcher.spec.plan import Plan
from launcher.store import Store
from launcher.store.runs import find, view
from launcher.store.selection import open_named_store


@click.command("verify")
@click.argument("run")
@click.option("--digests-only", is_flag=True, help="Do not score the stored answers anew.")
@store_options
@output_option("table", "json", "yaml")
def command(
    run: str, digests_only: bool, store_address: str | None, site_path: Path | None, output: str
) -> int:
    """Check every digest of RUN, and compute its results anew from the stored answers.

    The exit code is 0 only if every byte is what was committed and the results are the same.
    """
    store = open_named_store(store_address, site_path)
    seen = view(store, find(store, run))
    checks = _digests(store, seen.plan)
    if seen.verdict is not None and not digests_only:
        if all(check["ok"] for check in checks):
            checks += _results(store, seen.plan, seen.verdict)
        else:
            click.echo("the results were not computed anew: what they rest on is spoilt", err=True)
    if output == "table":
        rows = [["ok" if c["ok"] else "WRONG", c["what"], c["found"]] for c in checks]
        table(["STATE", "WHAT", "FOUND"], rows)
    else:
        emit(checks, output)
    wrong = [check for check in checks if not check["ok"]]
    click.echo(f"{seen.run_id}: {len(checks) - len(wrong)} of {len(checks)} checks passed", err=True)
    return DISPOSITIONS[Reason.CORRUPT_ARTIFACT].exit_code if wrong else 0


def _digests(store: Store, plan: Plan) -> list[dict[str, Any]]:
    """One check per stage and per outside file."""
    checks = []
    for stage in plan.stages:
        prefix = f"stages/{stage.key}"
        if not store.exists(prefix):
            continue
        try:
            artifact = store.open(prefix)
            artifact.directory()
            found, good = f"{len(artifact.manifest.files)} files, {artifact.manifest.size_bytes} bytes", True
        except Failure as failure:
            found, good = failure.text().partition("\n")[0], False
        checks.append({"what": stage.name, "ok": good, "found": found})
    wanted = {sha256: name for stage in plan.stages for name, sha256 in stage.inputs.items()}
    for sha256, name in sorted(wanted.items(), key=lambda item: item[1]):
        try:
            store.input(sha256)
            found, good = sha256[:12], True
        except Failure as failure:
            found, good = failure.text().partition("\n")[0], False
        checks.append({"what": f"input {name}", "ok": good, "found": found})
    return checks


def _results(store: Store, plan: Plan, verdict: dict[str, Any]) -> list[dict[str, Any]]:
    """Scores, comparison and digest, computed anew by the heavy side in a place of their own."""
    with tempfile.TemporaryDirectory(prefix="tuneyard-verify-") as scratch:
        plan_path, result_path = Path(scratch) / "plan.json", Path(scratch) / "verified.json"
        plan_path.write_bytes(plan.to_bytes())
        arguments = ["verify", "--plan", str(plan_path), "--store", store.address]
        arguments += ["--scratch", str(Path(scratch) / "work"), "--result", str(result_path)]
        code = run_jobs(arguments, talk_only=True)
        if code:
            return [{"what": "results", "ok": False, "found": f"could not be computed (exit code {code})"}]
        anew = json.loads(result_path.read_bytes())
    checks = [
        {
            "what": f"{name} anew",
            "ok": not differs,
            "found": ", ".join(differs) + " differ" if differs else "same",
        }
        for name, differs in anew["stages"].items()
    ]
    same = anew["results_digest"] == verdict["results_digest"]
    found = anew["results_digest"][:12] + (
        "" if same else f", the verdict says {verdict['results_digest'][:12]}"
    )
    return [*checks, {"what": "results digest", "ok": same, "found": found}]
