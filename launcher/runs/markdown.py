"""Markdown from text that nothing can be assumed about: model output and data cannot break the page."""

from __future__ import annotations

import re

from launcher.system.text import printable

_SHOWN_CHARACTERS = 300
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|&~])")


def _line(text: str) -> str:
    """One line of printable characters, truncated to `_SHOWN_CHARACTERS`."""
    cut = text[: _SHOWN_CHARACTERS + 1]
    flat = printable(cut)
    return flat if len(flat) <= _SHOWN_CHARACTERS else flat[: _SHOWN_CHARACTERS - 1] + "…"


def escaped(text: str) -> str:
    """Text with its Markdown escaped: no markup, link, image or further table cell."""
    return _MARKDOWN.sub(r"\\\1", _line(text))


def code_span(text: str) -> str:
    """A code span; backticks, which would end it, are replaced."""
    flat = _line(text).replace("`", "'").strip()
    return f"`{flat}`" if flat else "(empty)"


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table."""

    def cells(values: list[str]) -> str:
        return "| " + " | ".join(escaped(value) for value in values) + " |"

    return [cells(header), "|" + " --- |" * len(header), *(cells(row) for row in rows), ""]
