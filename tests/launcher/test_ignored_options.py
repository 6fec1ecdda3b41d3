"""Options without an effect are an error, and the help of an option lists all that it accepts."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from launching import Launcher

from launcher.cli.main import VERBS, cli
from launcher.cli.options import chosen_target
from launcher.spec.site import Site


@pytest.fixture
def launcher(tmp_path: Path) -> Launcher:
    return Launcher(tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ("submit", "sql", "--profile", "smoke", "--target", "local", "--detach", "--overlay", "overlay.yaml"),
        ("submit", "sql", "--profile", "smoke", "--target", "local", "--detach", "--context", "prod"),
        ("doctor", "--context", "prod"),
    ],
)
def test_a_cluster_option_is_an_error_for_the_local_target(
    launcher: Launcher, arguments: tuple[str, ...]
) -> None:
    (launcher.home / "overlay.yaml").write_text("spec: {}\n")
    said = launcher(*arguments)
    assert (said.returncode, said.stdout) == (2, "")
    [message] = [line for line in said.stderr.splitlines() if line.startswith("Error: ")]
    assert arguments[-2] in message
    assert "--target cluster" in message
    assert not (launcher.store / "runs").exists()


def test_the_error_names_every_ignored_option(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="--overlay and --context"):
        chosen_target("local", Site(), tmp_path / "overlay.yaml", "prod")
    assert chosen_target("local", Site(), None, None).name == "local"


@pytest.mark.parametrize("verb", [verb for verbs in VERBS.values() for verb in verbs])
def test_the_help_of_store_lists_every_kind_of_store(verb: str) -> None:
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    for option in command.params:
        if isinstance(option, click.Option) and "--store" in option.opts:
            assert all(kind in (option.help or "") for kind in ("a directory", "file:///DIR", "s3://"))
