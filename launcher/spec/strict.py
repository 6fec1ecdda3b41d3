"""The strict base of models of users' files, and validation errors as text."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


class Strict(BaseModel):
    """Base of models of users' files: unknown keys and loose types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


#: Accepted by every random number generator in use.
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def dns_label(limit_characters: int) -> Any:
    """A validator for names that become part of a Kubernetes name."""

    def check(value: str) -> str:
        if len(value) > limit_characters or not NAME.fullmatch(value):
            raise ValueError(
                f"must be at most {limit_characters} characters of a-z, 0-9 and '-', neither first nor last '-'"
            )
        return value

    return AfterValidator(check)


def describe(error: ValidationError) -> list[str]:
    """One line per problem: `contenders[1].lora.r: Input should be greater than or equal to 1 (got 0)`."""
    items = error.errors(include_url=False)
    lines: list[str] = []
    shown: dict[str, int] = {}
    for item in items:
        if item["type"] == "value_error" and not item["loc"]:
            lines += item["msg"].removeprefix("Value error, ").splitlines()
            continue
        if item["type"] == "too_short" and any(
            other["loc"][: len(item["loc"])] == item["loc"] and other is not item for other in items
        ):
            continue  # "0 items after validation", because the items themselves are wrong
        path, message = _path(item["loc"]), _message(item)
        if path in shown and not message.startswith("no such key"):
            lines[shown[path]] += f"; or {message}"  # the members of one union
            continue
        shown[path] = len(lines)
        lines.append(f"{path}: {message}" if path else message)
    return lines


def _message(item: ErrorDetails) -> str:
    if item["type"] == "extra_forbidden":
        return "no such key"
    if item["type"].startswith("union_tag"):
        expected = item["ctx"].get("expected_tags", "'lora', 'prompted', 'hosted'")
        return f"kind must be one of {expected}"
    given = item.get("input")
    # An address can hold a password and is not quoted.
    quoted = isinstance(given, str | int | float | bool) and item["loc"][-1:] != ("base_url",)
    suffix = f" (got {given!r})" if quoted else ""
    return item["msg"].removeprefix("Value error, ") + suffix


_UNION_MEMBER = re.compile(r"^(literal|constrained-)|\[")


def _path(location: tuple[Any, ...]) -> str:
    text = ""
    for position, part in enumerate(location):
        if isinstance(part, int):
            text += f"[{part}]"
        # pydantic adds a union's member to the path: the contender's kind after its index, elsewhere a type
        elif not (position == 2 and location[0] == "contenders") and not _UNION_MEMBER.search(str(part)):
            text += f".{part}" if text else str(part)
    return text
