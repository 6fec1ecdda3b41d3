"""Progress of a run until its attempt is closed: a live table on a terminal, plain lines in a pipe."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import click

from launcher.cli.output import duration, is_terminal
from launcher.runs.finalize import cancel
from launcher.store.records import Outcome
from launcher.store.runs import Attempt, RunView, StageStatus, view
from launcher.system.text import printable
from launcher.targets.target import Supervision

_POLL_S = 0.3
#: In a pipe, the progress of a running stage is printed this often.
_PLAIN_INTERVAL_S = 10.0


def watch(attempt: Attempt, supervision: Supervision) -> Outcome:
    """Show progress until the attempt is closed, and return its outcome.

    Ctrl-C on a terminal asks whether to stop the run or to leave it running.
    """
    screen: _LiveTable | _PlainLines = _LiveTable() if is_terminal() else _PlainLines()
    with screen.context():
        while True:
            try:
                outcome = attempt.outcome
                screen.show(view(attempt.store, attempt.run_id, attempt.number))
                if outcome is not None:
                    return outcome
                supervision.look()
                time.sleep(max(_POLL_S, attempt.store.poll_interval_s))
            except KeyboardInterrupt:
                screen.pause()
                _interrupted(attempt)
                screen.resume()


def _interrupted(attempt: Attempt) -> None:
    """Ask whether to stop the run, leave it running or continue watching. In a pipe, leave it running."""
    run = attempt.run_id
    choice = "l"
    if is_terminal():
        choice = click.prompt(
            f"\n{run} is running. [s]top it, [l]eave it running, [c]ontinue watching",
            type=click.Choice(["s", "l", "c"]),
            default="l",
            err=True,
            show_choices=False,
        )
    if choice == "s":
        cancel(attempt)
        click.echo(f"{run}: stopping; finished stages are kept (launcher retry {run})", err=True)
    elif choice == "l":
        click.echo(f"{run} is left running: launcher status {run}, launcher cancel {run}", err=True)
        raise click.exceptions.Exit(130)


class _PlainLines:
    """One line per change, and one per running stage at intervals."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}
        self._last = 0.0

    def context(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def show(self, run: RunView) -> None:
        now = time.monotonic()
        due = now - self._last >= _PLAIN_INTERVAL_S
        for status in run.stages:
            state = f"{status.state} {len(status.tries)}"
            changed = self._shown.get(status.stage.name) != state
            if changed and status.state in ("running", "finished", "failed", "blocked"):
                self._shown[status.stage.name] = state
                click.echo(f"{time.strftime('%H:%M:%S')} {status.stage.name} {describe(status)}", err=True)
            elif due and status.state == "running" and status.heartbeat:
                click.echo(f"{time.strftime('%H:%M:%S')} {status.stage.name} {describe(status)}", err=True)
        if due:
            self._last = now


class _LiveTable:
    """A table that is redrawn in place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), refresh_per_second=4, transient=False)

    def context(self) -> AbstractContextManager[Any]:
        return self._live

    def pause(self) -> None:
        self._live.stop()

    def resume(self) -> None:
        self._live.start()

    def show(self, run: RunView) -> None:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        shown = Table(title=run.run_id, title_justify="left", box=None, pad_edge=False)
        for heading in ("stage", "state", "", "progress"):
            shown.add_column(heading, no_wrap=heading != "progress")
        colours = {"finished": "green", "running": "cyan", "failed": "red", "blocked": "yellow"}
        for status in run.stages:
            step, total = _progress(status)
            shown.add_row(
                status.stage.name,
                Text(status.state, style=colours.get(status.state, "dim")),
                ProgressBar(total=total, completed=step, width=24),
                Text(detail(status)),
            )
        self._live.update(shown)


def _progress(status: StageStatus) -> tuple[float, float]:
    if status.state == "finished":
        return 1, 1
    if status.state == "running" and status.heartbeat:
        return status.heartbeat.step, max(1, status.heartbeat.total)
    return 0, 1


def describe(status: StageStatus) -> str:
    """State and detail of a stage on one line."""
    text = detail(status)
    return f"{status.state}: {text}" if text else status.state


def detail(status: StageStatus) -> str:
    """The detail of a stage: its time, failure, cause of waiting or progress; may be empty."""
    if status.state == "finished":
        return f"{duration(status.seconds)}{' (reused)' if status.reused else ''}"
    if status.state == "failed" and status.failure:
        return printable(status.failure.what)
    if status.state == "blocked":
        return f"by {status.blocked_by}"
    if status.note:
        return printable(str(status.note))
    beat = status.heartbeat
    if status.state == "running" and beat:
        measures = " ".join(f"{name} {value:.4g}" for name, value in beat.measures.items())
        eta = "" if beat.eta_s is None else f", {duration(beat.eta_s)} left"
        retried = f" (try {len(status.tries)})" if len(status.tries) > 1 else ""
        return f"{beat.unit} {beat.step}/{beat.total} {measures}".rstrip() + eta + retried
    return ""
