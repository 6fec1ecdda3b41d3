"""Checks a pod template's patch against the Kubernetes client's models: unknown fields, wrong types.

A misspelt overlay would otherwise be found by the API server at the earliest, and under GitOps only when the stage
starts.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

#: Strings in the client's models that YAML may also write as numbers: `cpu: 4`.
_QUANTITIES = frozenset({"requests", "limits", "overhead", "sizeLimit", "divisor", "capacity"})
_PLAIN: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}
_WORDS = {"str": "text (in quotes)", "int": "a whole number", "float": "a number", "bool": "true or false"}


def problems(where: str, patch: dict[str, Any]) -> Iterator[str]:
    """Every unknown field and wrong type in a patch; directives (`$patch`) and `null` are skipped."""
    yield from _of_kind(where, patch, "V1PodTemplateSpec")


def _of_kind(where: str, value: Any, kind: str) -> Iterator[str]:
    if value is None:
        return
    if kind.startswith("List["):
        if not isinstance(value, list):
            yield f"{where}: must be a list"
            return
        for place, item in enumerate(value):
            yield from _of_kind(f"{where}[{place}]", item, kind[len("List[") : -1])
    elif kind.startswith("Dict["):
        if not isinstance(value, dict):
            yield f"{where}: must be a mapping"
            return
        for key, inner in value.items():
            if not str(key).startswith("$"):
                yield from _of_kind(_join(where, key), inner, kind.partition(", ")[2][:-1])
    elif kind in _PLAIN:
        if not isinstance(value, _PLAIN[kind]) or (isinstance(value, bool) and kind != "bool"):
            yield f"{where}: must be {_WORDS[kind]}"
    elif kind == "object":
        if not isinstance(value, str | int | float | list | dict):
            yield f"{where}: must be text or a number"
    else:
        yield from _of_model(where, value, kind)


def _of_model(where: str, value: Any, kind: str) -> Iterator[str]:
    from kubernetes.client import models  # takes half a second, needed with an overlay only

    model = getattr(models, kind, None)
    if model is None:  # a date, in fields that only the server writes
        return
    if not isinstance(value, dict):
        yield f"{where}: must be a mapping"
        return
    fields = {name: attribute for attribute, name in model.attribute_map.items()}
    for key, inner in value.items():
        if str(key).startswith("$"):
            continue
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            yield f"{_join(where, key)}: no such field" + (f"; did you mean {near[0]}?" if near else "")
        elif key in _QUANTITIES and isinstance(inner, dict | int | float):
            continue  # amounts are checked in the merged template
        else:
            yield from _of_kind(_join(where, key), inner, model.openapi_types[fields[key]])


def _join(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)
