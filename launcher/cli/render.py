"""`launcher render`: a run's Kubernetes objects, on stdout or as files for Git."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from launcher.manifests import helm

helm.load_ahead()  # while the modules below are loaded, which takes as long

# ruff: noqa: E402
from launcher.cli.options import experiment_options, make_study, overlay_option
from launcher.costs.estimate import estimate, refuse_impossible
from launcher.manifests.render import STAGE_LABEL, Rendered, object_yaml, render
from launcher.outcome import Failure, Reason
from launcher.spec import site
from launcher.spec.documents import read_mapping

_KUSTOMIZATION = "kustomization.yaml"
#: What `_file_name` gives.
_FILE_NAME = re.compile(r"(serviceaccount|role|rolebinding|configmap|job|service-[a-z0-9-]+)\.yaml")
_NOTE = b"# Written by `launcher render`. Taking these files away cancels the run (its objects are pruned).\n"


@click.command("render")
@experiment_options
@click.option(
    "--site",
    "site_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Facts of the namespace.  [default: tuneyard/site.yaml in the user's config directory]",
)
@click.option(
    "--attempt",
    type=click.IntRange(1, 999),
    default=1,
    show_default=True,
    help="Which attempt at the run; raise it to try a failed run again.",
)
@overlay_option
@click.option("--values", "as_values", is_flag=True, help="Print the chart's values in place of the objects.")
@click.option(
    "-o",
    "--output",
    "output",
    type=click.Path(path_type=Path, file_okay=False, allow_dash=True),
    default="-",
    show_default=True,
    help="A directory for one file per object and a kustomization.yaml, or - for stdout.",
)
def command(
    site_path: Path | None,
    attempt: int,
    overlay_path: Path | None,
    as_values: bool,
    output: Path,
    **study: Any,
) -> int:
    """Print what `submit` would apply to a cluster to run EXPERIMENT, and apply nothing.

    No cluster is asked. The same experiment and site give the same bytes on any day, so they can be
    kept in Git. Nothing here removes finished Jobs by time: a controller would create them again.
    What no cluster can carry out is refused as `plan` refuses it: a hosted model from the day that its
    service shuts it down, too. What was rendered before that day stays as it is.

    \b
    launcher render sql --site site.yaml | kubectl apply --server-side -f -
    launcher render sql --site site.yaml -o k8s/runs/sql
    """
    if as_values and (overlay_path is not None or str(output) != "-"):
        raise click.UsageError("--values goes to stdout, and an overlay is merged after Helm: give neither")
    made = make_study(**study)
    facts = site.load(site_path)
    refuse_impossible(made.plan, estimate(made.plan, None, facts.prices()))
    rendered = render(
        made.plan,
        facts,
        attempt=attempt,
        budget_usd=made.experiment.budget_usd,
        overlay=read_mapping(overlay_path) if overlay_path is not None else None,
    )
    if as_values:
        # JSON is YAML too, and no reader of YAML takes a figure in it for a word.
        click.echo(json.dumps(rendered.values, indent=2, ensure_ascii=False))
    elif str(output) == "-":
        click.echo(rendered.to_yaml(), nl=False)
    else:
        write(rendered, output)
        click.echo(f"run {rendered.run_id}, attempt {attempt}: {len(rendered.objects)} objects", err=True)
    return 0


def write(rendered: Rendered, directory: Path) -> None:
    """One file per object and a kustomization.yaml. Files of an earlier rendering there are replaced or removed.

    Raises Failure(USAGE), and writes nothing, where a file would be overwritten that no rendering wrote.
    """
    names = [_file_name(item) for item in rendered.objects]
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": names,
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        earlier = _rendered_before(directory)
        foreign = sorted(name for name in {*names, _KUSTOMIZATION} - earlier if (directory / name).exists())
        if foreign:
            raise Failure(
                Reason.USAGE,
                "files are there that `launcher render` has not written",
                where=f"-o {directory}",
                problems=tuple(foreign),
                next_step="name a directory of the run's own, or move them away",
            )
        for name, item in zip(names, rendered.objects, strict=True):
            (directory / name).write_bytes(object_yaml(item))
        (directory / _KUSTOMIZATION).write_bytes(_NOTE + object_yaml(kustomization))
        for name in earlier - {*names, _KUSTOMIZATION}:
            (directory / name).unlink(missing_ok=True)
    except OSError as error:
        raise Failure(
            Reason.USAGE,
            f"cannot write: {error.strerror}",
            where=f"-o {directory}",
            next_step="name a directory that can be written",
        ) from None


def _rendered_before(directory: Path) -> set[str]:
    """The files that an earlier rendering left in a directory, by its kustomization.yaml."""
    path = directory / _KUSTOMIZATION
    if not path.is_file() or not path.read_bytes().startswith(_NOTE):
        return set()
    listed = read_mapping(path).get("resources")
    names = listed if isinstance(listed, list) else []
    # A person may have added others, and paths: those are not ours to remove.
    return {_KUSTOMIZATION, *(name for name in names if isinstance(name, str) and _FILE_NAME.fullmatch(name))}


def _file_name(item: dict[str, Any]) -> str:
    """The object's kind, and where there are several of a kind the stage they belong to."""
    stage = item["metadata"]["labels"].get(STAGE_LABEL)
    kind = str(item["kind"]).lower()
    return f"{kind}-{stage}.yaml" if stage else f"{kind}.yaml"
