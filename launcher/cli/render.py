"""`launcher render`: the Kubernetes objects of a run, on stdout or as files for Git."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from launcher.manifests import helm

helm.load_ahead()  # in the background, while the modules below are imported

# ruff: noqa: E402
from launcher.cli.options import experiment_options, load_study, overlay_option
from launcher.costs.estimate import estimate, refuse_impossible
from launcher.manifests.labels import STAGE_LABEL
from launcher.manifests.object_yaml import object_yaml
from launcher.manifests.render import Rendered, render
from launcher.outcome import Failure, Reason
from launcher.spec import site
from launcher.spec.documents import read_mapping

_KUSTOMIZATION = "kustomization.yaml"
#: File names that `_file_name` returns.
_FILE_NAME = re.compile(
    r"(serviceaccount|role|rolebinding|configmap|job|(service|networkpolicy)-[a-z0-9-]+)\.yaml"
)
_NOTE = b"# Written by `launcher render`. Removing these files cancels the run (its objects are pruned).\n"


@click.command("render")
@experiment_options
@click.option(
    "--site",
    "site_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Site file of the namespace.  [default: tuneyard/site.yaml in the user's config directory]",
)
@click.option(
    "--attempt",
    type=click.IntRange(1, 999),
    default=1,
    show_default=True,
    help="Number of the attempt; raise it to run a failed run again.",
)
@overlay_option
@click.option("--values", "as_values", is_flag=True, help="Print the chart's values instead of the objects.")
@click.option(
    "-o",
    "--output",
    "output",
    type=click.Path(path_type=Path, file_okay=False, allow_dash=True),
    default="-",
    show_default=True,
    help="Directory for one file per object and a kustomization.yaml, or - for stdout.",
)
def command(
    site_path: Path | None,
    attempt: int,
    overlay_path: Path | None,
    as_values: bool,
    output: Path,
    **options: Any,
) -> int:
    """Print what `submit` would apply to a cluster to run EXPERIMENT, and apply nothing.

    No cluster is contacted. The same experiment and site give the same bytes on any day, so the objects
    can be kept in Git. Finished Jobs have no time to live: a GitOps controller would create them again.
    A plan that no cluster can carry out is an error, as in `plan`; so is a hosted model from the day on
    which its service shuts it down.

    \b
    launcher render sql --site site.yaml | kubectl apply --server-side -f -
    launcher render sql --site site.yaml -o k8s/runs/sql
    """
    if as_values and (overlay_path is not None or str(output) != "-"):
        raise click.UsageError(
            "--values prints to stdout, before any overlay is merged: leave out --overlay and --output"
        )
    study = load_study(**options)
    facts = site.load(site_path)
    refuse_impossible(study.plan, estimate(study.plan, None, facts.prices()))
    rendered = render(
        study.plan,
        facts,
        attempt=attempt,
        budget_usd=study.experiment.budget_usd,
        overlay=read_mapping(overlay_path) if overlay_path is not None else None,
    )
    if as_values:
        # JSON is valid YAML, and its strings and numbers are unambiguous.
        click.echo(json.dumps(rendered.values, indent=2, ensure_ascii=False))
    elif str(output) == "-":
        click.echo(rendered.to_yaml(), nl=False)
    else:
        write(rendered, output)
        click.echo(f"run {rendered.run_id}, attempt {attempt}: {len(rendered.objects)} objects", err=True)
    return 0


def write(rendered: Rendered, directory: Path) -> None:
    """Write one file per object and a kustomization.yaml; files of an earlier rendering are replaced or removed.

    Raises Failure(USAGE), and writes nothing, if it would overwrite a file that is not of a rendering.
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
                "the directory has files that `launcher render` has not written",
                where=f"-o {directory}",
                problems=tuple(foreign),
                next_step="name another directory, or move the files away",
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
    """Files of an earlier rendering in a directory, from its kustomization.yaml."""
    path = directory / _KUSTOMIZATION
    if not path.is_file() or not path.read_bytes().startswith(_NOTE):
        return set()
    listed = read_mapping(path).get("resources")
    names = listed if isinstance(listed, list) else []
    # A user may have added other files and paths to it; they are kept.
    return {_KUSTOMIZATION, *(name for name in names if isinstance(name, str) and _FILE_NAME.fullmatch(name))}


def _file_name(item: dict[str, Any]) -> str:
    """The object's kind, and its stage if there is one object of the kind per stage."""
    stage = item["metadata"]["labels"].get(STAGE_LABEL)
    kind = str(item["kind"]).lower()
    return f"{kind}-{stage}.yaml" if stage else f"{kind}.yaml"
