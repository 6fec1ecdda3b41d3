"""`launcher`: the group of verbs. Starts in a tenth of a second: a verb's module is imported when the verb is used.

Verbs that need the packages of an extra are defined in `jobs`; they are imported by name, never statically.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

# pydantic would search every installed distribution for plugins; Tuneyard uses none.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

#: Heading -> verb -> (module, one line of help).
VERBS: dict[str, dict[str, tuple[str, str]]] = {
    "Run": {
        "plan": ("launcher.cli.plan", "Show stages, inputs and estimates before anything runs."),
        "submit": ("launcher.cli.submit", "Run an experiment, or continue it, and print the verdict."),
        "render": ("launcher.cli.render", "Print the Kubernetes objects of a run, for review or for Git."),
        "retry": ("launcher.cli.retry", "Start another attempt at a run that failed or was cancelled."),
        "cancel": ("launcher.cli.cancel", "Stop a run and close its attempt."),
    },
    "Inspect": {
        "list": ("launcher.cli.list", "List the runs of a store."),
        "status": ("launcher.cli.status", "Show the state of every stage of a run."),
        "logs": ("launcher.cli.logs", "Print a stage's log, or follow it."),
        "why": (
            "launcher.cli.why",
            "Explain a run's state in one sentence, with the next command.",
        ),
        "report": ("launcher.cli.report", "Print a finished run's report or verdict."),
        "artifacts": ("launcher.cli.artifacts", "List or download the files that a run wrote."),
        "verify": ("jobs.verify", "Check every digest of a run and recompute its results."),
    },
    "Data and scores": {
        "data": (
            "jobs.prepare.command",
            "Prepare a data set without a run: chat rows, upload files, data card.",
        ),
        "score": ("jobs.score.command", "Score a file of answers without a run."),
    },
    "Setup": {
        "gc": ("launcher.cli.gc", "List or delete what a store no longer needs."),
        "rehearse": (
            "jobs.rehearsal.command",
            "Serve the OpenAI protocol on this machine; its jobs really train.",
        ),
        "doctor": ("launcher.cli.doctor", "Check this installation, this machine or a cluster."),
    },
}


class LazyGroup(click.Group):
    """Holds every verb's name and help line; imports a verb's module only when the verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [verb for verbs in VERBS.values() for verb in verbs]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for verbs in VERBS.values():
            if cmd_name in verbs:
                command = importlib.import_module(verbs[cmd_name][0]).command
                assert isinstance(command, click.Command)
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, verbs in VERBS.items():
            with formatter.section(heading):
                formatter.write_dl([(verb, line) for verb, (_, line) in verbs.items()])


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="tuneyard", prog_name="launcher")
def cli() -> None:
    """Tune an open model on your own GPUs, or pay for a hosted one? Run the study and get a verdict with a receipt.

    \b
    launcher submit sql --target local     a small study on this machine, in minutes
    launcher plan sql --data DIR           what it would take on your own questions
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; `arguments` are by default those of the process. Returns an exit code of launcher/outcome.py."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = cli.main(args=words, prog_name="launcher", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        from launcher.cli import errors

        return errors.report(error, words[0] if words else "")


if __name__ == "__main__":
    sys.exit(main())
