"""Options that several verbs share, written once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from launcher.outcome import Failure, Reason
from launcher.resolve.resolver import Resolution, choose_source, read_lock, resolve
from launcher.spec import site
from launcher.spec.documents import read_mapping
from launcher.spec.experiment import Experiment
from launcher.spec.loading import load
from launcher.spec.plan import Plan
from launcher.spec.planner import plan

if TYPE_CHECKING:
    from launcher.targets.target import Target

#: How long a verb that has most of its answer from the store waits for an API server that is away.
CLUSTER_PATIENCE_S = 5.0

Function = TypeVar("Function", bound=Callable[..., Any])


def store_options(function: Function) -> Function:
    """--store and --site."""
    function = click.option(
        "--store",
        "store_address",
        envvar="TUNEYARD_STORE",
        metavar="ADDRESS",
        help="Where artifacts live: a directory, file:///DIR or s3://BUCKET/PREFIX?region=…&endpoint_url=….  "
        "[default: $TUNEYARD_STORE, the site's store, or tuneyard/store in the user's data home]",
    )(function)
    return click.option(
        "--site",
        "site_path",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Facts of a namespace.  [default: tuneyard/site.yaml in the user's config directory, if there]",
    )(function)


def cluster_options(function: Function) -> Function:
    """--overlay and --context."""
    return overlay_option(context_option(function))


def context_option(function: Function) -> Function:
    """--context."""
    return click.option(
        "--context", help="Context of the kubeconfig, for a cluster.  [default: the current one]"
    )(function)


def overlay_option(function: Function) -> Function:
    """--overlay."""
    return click.option(
        "--overlay",
        "overlay_path",
        type=click.Path(path_type=Path, dir_okay=False),
        help="YAML merged over the template of every pod (strategic merge), for a cluster.  [default: none]",
    )(function)


def chosen_target(name: str, facts: site.Site, overlay_path: Path | None, context: str | None) -> Target:
    """The target of that name, with what the options say of it. Raises Failure for an overlay that cannot be read."""
    if name == "local":
        refuse_for_this_machine({"--overlay": overlay_path, "--context": context})
    overlay = read_mapping(overlay_path) if overlay_path is not None else None
    # Here, because plan and render have no target and start without all that runs on one.
    from launcher.targets.runner import make_target

    return make_target(
        name, facts, overlay=overlay, context=context, say=lambda text: click.echo(text, err=True)
    )


def refuse_for_this_machine(options: Mapping[str, object]) -> None:
    """Raises UsageError where any of these options, which say something of a cluster, was given."""
    given = " and ".join(option for option, value in options.items() if value is not None)
    if given:
        raise click.UsageError(
            f"{given}: only for a cluster and its pods, not for this machine; leave it out, or --target cluster"
        )


def output_option(*formats: str) -> Callable[[Function], Function]:
    """-o: what is printed on stdout."""
    return click.option(
        "-o",
        "--output",
        "output",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        help="Form of what is printed on stdout.",
    )


def experiment_options(function: Function) -> Function:
    """What names and overrides an experiment."""
    for option in reversed(
        [
            click.argument("experiment"),
            click.option(
                "--profile",
                help="Named overrides in the experiment: demo, paper, smoke, …  [default: the file's own]",
            ),
            click.option(
                "-f",
                "--file",
                "files",
                multiple=True,
                type=click.Path(path_type=Path),
                help="YAML file merged over the experiment. Can be repeated.",
            ),
            click.option(
                "--set",
                "sets",
                multiple=True,
                metavar="PATH=VALUE",
                help="One value, for example contenders[lora].lora.r=16. Can be repeated.",
            ),
            click.option(
                "--data",
                "data_directory",
                type=click.Path(path_type=Path),
                help="Directory with the data's files, or with a folder named like the source.",
            ),
            click.option(
                "--lock",
                "lock_path",
                type=click.Path(path_type=Path, dir_okay=False),
                help="Resolved names and digests: read if the file is there, else written.",
            ),
            click.option("--relock", is_flag=True, help="Resolve every name anew and write --lock again."),
        ]
    ):
        function = option(function)
    return function


class Study:
    """An experiment made into a plan, with what is needed to run it."""

    def __init__(self, experiment: Experiment, resolution: Resolution) -> None:
        self.experiment = experiment
        self.resolution = resolution
        self.plan: Plan = plan(resolution.experiment, resolution.lock)


def make_study(
    experiment: str,
    profile: str | None,
    files: tuple[Path, ...],
    sets: tuple[str, ...],
    data_directory: Path | None,
    lock_path: Path | None,
    relock: bool,
) -> Study:
    """From the shared options to a plan. Raises Failure with every problem found."""
    if relock and lock_path is None:
        raise click.UsageError("--relock needs --lock FILE")
    loaded = load(experiment, profile=profile, files=files, sets=sets)
    if data_directory is not None:
        chosen = choose_source(loaded, data_directory)
        if chosen is not loaded:
            click.echo(
                f"data: {data_directory} holds '{chosen.data.source}', used in place of the sample", err=True
            )
        loaded = chosen
    locked = read_lock(lock_path) if lock_path is not None and lock_path.exists() and not relock else None
    resolution = resolve(loaded, data_directory=data_directory, locked=locked)
    if lock_path is not None and locked is None:
        try:
            lock_path.write_text(resolution.lock.model_dump_json(indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise Failure(
                Reason.USAGE,
                f"cannot write: {error.strerror}",
                where=f"--lock {lock_path}",
                next_step="name a file that can be written",
            ) from None
        click.echo(f"lock: written to {lock_path}", err=True)
    return Study(loaded, resolution)
