"""`launcher`: the group of verbs. Starts in a tenth of a second, because a verb is imported when it is called."""

from __future__ import annotations

import importlib
import os
import sys

import click

# pydantic would read the entry points of every installed distribution, for plugins of which we have none.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

#: Heading -> verb -> (module, one line of help).
VERBS: dict[str, dict[str, tuple[str, str]]] = {
    "Run": {
        "plan": ("launcher.cli.plan", "Show stages, inputs and estimates before anything runs."),
        "submit": ("launcher.cli.submit", "Run an experiment, or continue it, and print the verdict."),
        "render": ("launcher.cli.render", "Print the Kubernetes objects of a run, for review or for Git."),
        "retry": ("launcher.cli.retry", "Open another attempt at a run that failed or was cancelled."),
        "cancel": ("launcher.cli.cancel", "Stop a run and close its attempt."),
    },
    "Look": {
        "list": ("launcher.cli.list", "List the runs of a store."),
        "status": ("launcher.cli.status", "Show where every stage of a run stands."),
        "logs": ("launcher.cli.logs", "Print a stage's log, or follow it."),
        "why": (
            "launcher.cli.why",
            "Say in one sentence why a run stands where it stands, and the next command.",
        ),
        "report": ("launcher.cli.report", "Print a finished run's report or verdict."),
        "artifacts": ("launcher.cli.artifacts", "List or fetch what a run made."),
        "verify": ("launcher.cli.verify", "Check every digest of a run and compute its results anew."),
    },
    "Data and scores": {
        "data": (
            "launcher.cli.data",
            "Prepare a data set without a run: chat rows, upload files, data card.",
        ),
        "score": ("launcher.cli.score", "Score a file of answers without a run."),
    },
    "Setup": {
        "gc": ("launcher.cli.gc", "List or delete what a store no longer needs."),
        "rehearse": (
            "launcher.cli.rehearse",
            "Serve the hosted protocol on this machine; its jobs really train.",
        ),
        "doctor": ("launcher.cli.doctor", "Check this installation and this machine."),
    },
}


class LazyGroup(click.Group):
    """Knows every verb's name and help line; imports a verb's module only when it is used."""

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


def main() -> int:
    """Entry point: every expected end is one message on stderr and an exit code of launcher/outcome.py."""
    try:
        result = cli.main(prog_name="launcher", standalone_mode=False)
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
        return _explain(error)


def _explain(error: Exception) -> int:
    from launcher.outcome import Failure, Reason

    if not isinstance(error, Failure):
        if os.environ.get("TUNEYARD_TRACEBACK"):
            raise error
        error = Failure(
            Reason.INTERNAL,
            f"{type(error).__name__}: {error}",
            next_step="please report it, with what TUNEYARD_TRACEBACK=1 and the same command print",
        )
    print(f"error: {error.text()}", file=sys.stderr)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
