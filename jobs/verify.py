"""`launcher verify`: check the digests of a run's files, score its stored answers again and compare the results.

Nothing is written to the store: recomputed stages go to a temporary directory.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import click

from jobs.stage import StageContext
from launcher.cli import errors
from launcher.cli.options import output_option, store_options
from launcher.cli.output import emit, table
from launcher.outcome import DISPOSITIONS, Failure, Reason
from launcher.spec.plan import Plan, Stage
from launcher.spec.results import Results
from launcher.spec.stages import VERSIONS
from launcher.spec.tasks import INPUT_PREFIX, SCORER_PREFIX
from launcher.store import Artifact, DirectoryStore, Store, digest_file
from launcher.store.runs import find, view
from launcher.store.selection import open_named_store


@dataclass(frozen=True)
class Check:
    """One line of the output. The field names are the keys of `-o json`."""

    what: str
    ok: bool
    found: str


@click.command("verify")
@click.argument("run")
@click.option("--digests-only", is_flag=True, help="Check digests only; do not recompute the results.")
@click.option(
    "--code",
    "code_directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Directory with your own scorer or task folder. A run's own code is run only if the same file is there.  "
    "[default: the current directory]",
)
@store_options
@output_option("table", "json", "yaml")
def command(
    run: str,
    digests_only: bool,
    code_directory: Path,
    store_address: str | None,
    site_path: Path | None,
    output: str,
) -> int:
    """Check every digest of RUN, and recompute its results from the stored answers.

    The exit code is 0 only if every byte is what was committed and the results are the same. No code from the
    store is run: a scorer or a task of your own has to be at hand, byte for byte the same.
    """
    store = open_named_store(store_address, site_path)
    seen = view(store, find(store, run))
    checks = _digest_checks(store, seen.plan)
    if seen.verdict is not None and not digests_only:
        if foreign := foreign_code(seen.plan, code_directory):
            checks.append(
                Check(
                    "results",
                    False,
                    f"not recomputed: this code is not in {code_directory}: {', '.join(foreign)}",
                )
            )
        elif all(check.ok for check in checks):
            checks += _result_checks(store, seen.plan, seen.verdict)
        else:
            click.echo("the results were not recomputed: files that they depend on are corrupt", err=True)
    if output == "table":
        rows = [["ok" if check.ok else "WRONG", check.what, check.found] for check in checks]
        table(["STATE", "WHAT", "FOUND"], rows)
    else:
        emit([asdict(check) for check in checks], output)
    wrong = [check for check in checks if not check.ok]
    click.echo(f"{seen.run_id}: {len(checks) - len(wrong)} of {len(checks)} checks passed", err=True)
    return DISPOSITIONS[Reason.CORRUPT_ARTIFACT].exit_code if wrong else 0


def _digest_checks(store: Store, plan: Plan) -> list[Check]:
    """One check per finished stage and per outside file."""
    checks = []
    for stage in plan.stages:
        prefix = f"stages/{stage.key}"
        if not store.exists(prefix):
            continue
        try:
            artifact = store.open(prefix)
            artifact.directory()
            files, size_bytes = len(artifact.manifest.files), artifact.manifest.size_bytes
            checks.append(Check(stage.name, True, f"{files} files, {size_bytes} bytes"))
        except Failure as failure:
            checks.append(Check(stage.name, False, failure.text().partition("\n")[0]))
    inputs = {sha256: name for stage in plan.stages for name, sha256 in stage.inputs.items()}
    for sha256, name in sorted(inputs.items(), key=lambda item: item[1]):
        try:
            store.input(sha256)
            checks.append(Check(f"input {name}", True, sha256[:12]))
        except Failure as failure:
            checks.append(Check(f"input {name}", False, failure.text().partition("\n")[0]))
    return checks


def _result_checks(store: Store, plan: Plan, verdict: dict[str, Any]) -> list[Check]:
    """One check per recomputed stage, and one of the results digest. A failure is one check that is not ok."""
    try:
        # The stages print to stdout, which is for the checks alone.
        with (
            tempfile.TemporaryDirectory(prefix="tuneyard-verify-") as scratch,
            contextlib.redirect_stdout(sys.stderr),
        ):
            recomputed = recompute(plan, store, Path(scratch))
    except Failure as failure:
        code = errors.report(failure, "verify")
        return [Check("results", False, f"could not be computed (exit code {code})")]
    checks = [
        Check(f"{name} recomputed", not differing, f"{', '.join(differing)} differ" if differing else "same")
        for name, differing in recomputed.stages.items()
    ]
    expected, found = verdict["results_digest"], recomputed.results_digest
    same = found == expected
    text = found[:12] if same else f"{found[:12]}, the verdict has {expected[:12]}"
    return [*checks, Check("results digest", same, text)]


def foreign_code(plan: Plan, directory: Path) -> list[str]:
    """Code that the run's stages would run and that is not, with the same bytes, in `directory`.

    A scorer `scorers/MODULE.py` is looked for as its module's file, a file of a task folder by its path in it.
    """
    code: dict[str, str] = {}
    for stage in plan.stages:
        for name, sha256 in stage.inputs.items():
            if name.startswith(SCORER_PREFIX):
                module = name.removeprefix(SCORER_PREFIX).removesuffix(".py")
                code[f"{module.replace('.', '/')}.py"] = sha256
            elif name.startswith(INPUT_PREFIX):
                code[name.removeprefix(INPUT_PREFIX)] = sha256
    return [name for name, sha256 in sorted(code.items()) if not _is_same(directory / name, sha256)]


def _is_same(path: Path, sha256: str) -> bool:
    try:
        return digest_file(path).sha256 == sha256
    except OSError:
        return False


@dataclass(frozen=True)
class Recomputed:
    """The score and report stages of a plan, computed again."""

    #: Stage name -> names of files that differ from the committed ones.
    stages: dict[str, list[str]]
    results_digest: str


class OverlayStore(DirectoryStore):
    """Writes to a directory; reads what the directory lacks from another store."""

    def __init__(self, root: Path, base: Store) -> None:
        super().__init__(root)
        self._base = base

    def open(self, prefix: str) -> Artifact:  # type: ignore[override]
        return super().open(prefix) if self.exists(prefix) else self._base.open(prefix)

    def input(self, sha256: str) -> Path:
        return self._base.input(sha256)


def recompute(plan: Plan, store: Store, scratch: Path) -> Recomputed:
    """Run the score and report stages again in `scratch` and compare their files with the committed ones.

    Raises Failure(VERSION_MISMATCH) if the plan names other versions of these stages than this code has.
    """
    overlay = OverlayStore(scratch / "store", store)
    stages = [stage for stage in plan.stages if stage.kind in ("score", "report")]
    old = [f"{s.name} (version {s.version})" for s in stages if VERSIONS[s.kind] != s.version]
    if old:
        raise Failure(
            Reason.VERSION_MISMATCH,
            "the results were computed by another version of the code",
            where=plan.run_id,
            problems=tuple(old),
            next_step="verify with the version that computed them, or submit again to score with this one",
        )
    differing = {stage.name: _differing_files(plan, stage, overlay, store, scratch) for stage in stages}
    report = overlay.open(f"stages/{plan.stage('report').key}").path("results.json")
    return Recomputed(differing, Results.model_validate_json(report.read_bytes()).digest())


def _differing_files(
    plan: Plan, stage: Stage, overlay: OverlayStore, store: Store, scratch: Path
) -> list[str]:
    """Names of the files of one stage whose recomputed content does not confirm the committed one."""
    context = StageContext(plan, stage, overlay, 1, scratch / stage.name)
    context.may_use_cache = False
    importlib.import_module(f"jobs.{stage.kind}.stage").run(context)
    prefix = f"stages/{stage.key}"
    found = overlay.commit(prefix, context.out, {}).files
    recomputed, committed = overlay.open(prefix), store.open(prefix)
    return sorted(
        name
        for name, entry in committed.manifest.files.items()
        if found.get(name) != entry
        and not (name in found and _confirms(recomputed.path(name), committed.path(name)))
    ) + sorted(found.keys() - committed.manifest.files.keys())


def _confirms(recomputed: Path, committed: Path) -> bool:
    """Whether a recomputed JSON or JSONL file has every value of the committed one.

    A later version of the code may add keys: what the run claims is still true.
    """
    if committed.suffix == ".json":
        return contains(json.loads(recomputed.read_bytes()), json.loads(committed.read_bytes()))
    if committed.suffix != ".jsonl":
        return False
    pairs = zip_longest(recomputed.read_bytes().splitlines(), committed.read_bytes().splitlines())
    return all(a is not None and b is not None and contains(json.loads(a), json.loads(b)) for a, b in pairs)


def contains(document: Any, part: Any) -> bool:
    """Whether `document` equals `part` but for keys of mappings that only `document` has."""
    if isinstance(document, dict) and isinstance(part, dict):
        return all(key in document and contains(document[key], value) for key, value in part.items())
    if isinstance(document, list) and isinstance(part, list):
        return len(document) == len(part) and all(map(contains, document, part))
    return type(document) is type(part) and bool(document == part)
