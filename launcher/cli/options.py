"""Options that several verbs share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from launcher.cli.output import message

if TYPE_CHECKING:
    from launcher.resolve.study import Study
    from launcher.runs.code_consent import Consent
    from launcher.spec.site import Site
    from launcher.targets.target import Target

#: How long a verb that reads mostly from the store waits for an API server that does not answer.
CLUSTER_PATIENCE_S = 5.0

Function = TypeVar("Function", bound=Callable[..., Any])


def store_options(function: Function) -> Function:
    """--store and --site."""
    function = click.option(
        "--store",
        "store_address",
        envvar="TUNEYARD_STORE",
        metavar="ADDRESS",
        help="Store of artifacts: a directory, file:///DIR or s3://BUCKET/PREFIX?region=…&endpoint_url=….  "
        "[default: $TUNEYARD_STORE, the site's store, or tuneyard/store in the user's data home]",
    )(function)
    return click.option(
        "--site",
        "site_path",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Site file of a namespace.  [default: tuneyard/site.yaml in the user's config directory, if it exists]",
    )(function)


def cluster_options(function: Function) -> Function:
    """--overlay and --context."""
    return overlay_option(context_option(function))


def context_option(function: Function) -> Function:
    """--context."""
    return click.option(
        "--context", help="Context of the kubeconfig, for target cluster.  [default: the current one]"
    )(function)


def overlay_option(function: Function) -> Function:
    """--overlay."""
    return click.option(
        "--overlay",
        "overlay_path",
        type=click.Path(path_type=Path, dir_okay=False),
        help="YAML merged into every pod template (strategic merge), for target cluster.  [default: none]",
    )(function)


def chosen_target(name: str, facts: Site, overlay_path: Path | None, context: str | None) -> Target:
    """The target that the options name. Raises Failure for an overlay that cannot be read."""
    if name == "local":
        reject_cluster_options({"--overlay": overlay_path, "--context": context})
    # Verbs that only read from the store do without these modules, and start faster.
    from launcher.spec.documents import read_mapping
    from launcher.targets.runner import make_target

    overlay = read_mapping(overlay_path) if overlay_path is not None else None
    return make_target(name, facts, overlay=overlay, context=context, say=message)


def reject_cluster_options(options: Mapping[str, object]) -> None:
    """Raises UsageError if any of these options, which have an effect only on a cluster, was given."""
    given = " and ".join(option for option, value in options.items() if value is not None)
    if given:
        raise click.UsageError(
            f"{given}: only for target cluster, not for this machine; leave it out, or add --target cluster"
        )


def allow_code_option(function: Function) -> Function:
    """--allow-code."""
    return click.option(
        "--allow-code",
        metavar="DIGEST",
        help="Run the code of the task's folder if its sha256 is DIGEST (at least 12 digits).  "
        "[default: ask, if this is a terminal]",
    )(function)


def consent(allow_code: str | None) -> Consent:
    """Consent by --allow-code, or by an answer on the terminal."""
    from launcher.runs.code_consent import Consent

    def ask(description: str) -> bool:
        click.echo(description, err=True)
        return click.confirm("run it?", err=True)

    return Consent(allow_code, ask if sys.stdin.isatty() and sys.stderr.isatty() else None)


def output_option(*formats: str) -> Callable[[Function], Function]:
    """-o: the format of the output on stdout."""
    return click.option(
        "-o",
        "--output",
        "output",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        help="Format of the output on stdout.",
    )


def experiment_options(function: Function) -> Function:
    """The options that name an experiment and override its settings; see `load_study`."""
    for option in reversed(
        [
            click.argument("experiment"),
            click.option(
                "--profile",
                help="Profile of the experiment: demo, paper, smoke, …  [default: the file's own]",
            ),
            click.option(
                "-f",
                "--file",
                "files",
                multiple=True,
                type=click.Path(path_type=Path),
                help="YAML file merged into the experiment. Can be repeated.",
            ),
            click.option(
                "--set",
                "sets",
                multiple=True,
                metavar="PATH=VALUE",
                help="Set one value, for example contenders[lora].lora.r=16. Can be repeated.",
            ),
            click.option(
                "--data",
                "data_directory",
                type=click.Path(path_type=Path),
                help="Directory with the data's files, or with a folder that has the source's name.",
            ),
            click.option(
                "--lock",
                "lock_path",
                type=click.Path(path_type=Path, dir_okay=False),
                help="Lock file with resolved names and digests: read if it exists, else written.",
            ),
            click.option(
                "--relock", is_flag=True, help="Resolve every name again and overwrite the file of --lock."
            ),
        ]
    ):
        function = option(function)
    return function


def load_study(
    experiment: str,
    profile: str | None,
    files: tuple[Path, ...],
    sets: tuple[str, ...],
    data_directory: Path | None,
    lock_path: Path | None,
    relock: bool,
) -> Study:
    """The study that the options of `experiment_options` name. Raises Failure with every problem."""
    from launcher.resolve.study import make_study
    from launcher.spec.loading import load

    return make_study(
        load(experiment, profile=profile, files=files, sets=sets),
        data_directory=data_directory,
        lock_path=lock_path,
        relock=relock,
        notify=message,
    )
