"""Output formats: data as JSON, YAML or a table on stdout, messages on stderr."""

from __future__ import annotations

import json
import sys
from typing import Any

import click


def message(text: str) -> None:
    """Print a message for a person: on stderr, so that stdout has data only."""
    click.echo(text, err=True)


def emit(value: Any, output: str) -> None:
    """Print plain data as JSON or YAML on stdout."""
    if output == "json":
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        import yaml

        click.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), nl=False)


def table(header: list[str], rows: list[list[str]]) -> None:
    """Print columns aligned with spaces, as kubectl does."""
    widths = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]
    for line in [header, *rows]:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        click.echo("   ".join(cells).rstrip())


def duration(seconds: float | None) -> str:
    """`42 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def is_terminal() -> bool:
    """Whether stderr is a terminal, on which a table can be redrawn in place."""
    return sys.stderr.isatty()


def size(size_bytes: float) -> str:
    """`512 B`, `1.5 GiB`: bytes in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"
