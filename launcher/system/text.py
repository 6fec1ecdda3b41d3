"""Text from outside, made safe to print, and long lists shortened."""

from __future__ import annotations

from collections.abc import Sequence


def printable(text: str, *, keep: str = "", replacement: str = " ") -> str:
    """`text` with every character that is neither printable nor in `keep` replaced.

    Names, model output and cluster objects may carry escape sequences that would move a terminal's cursor.
    """
    return "".join(c if c.isprintable() or c in keep else replacement for c in text)


def first_of(lines: Sequence[str], limit: int) -> list[str]:
    """The first `limit` lines, and how many were left out if there are more."""
    shown = list(lines[:limit])
    if len(lines) > limit:
        shown.append(f"… and {len(lines) - limit} more")
    return shown


def listed(names: Sequence[str], limit: int) -> str:
    """`a, b, c and 2 more`: the first `limit` names in one phrase."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{', '.join(names[:limit])}{more}"


def header_secret(secret: str) -> str:
    """A token or key as an HTTP header can carry it: without white space around it.

    Raises ValueError if a line break or another character is inside that a header cannot carry. The message never
    quotes the secret, unlike those of HTTP libraries.
    """
    stripped = secret.strip()
    if "\n" in stripped or "\r" in stripped:
        raise ValueError("has a line break inside")
    if not stripped.isascii() or not stripped.isprintable():
        raise ValueError("has a character that an HTTP header cannot carry")
    return stripped
