"""Finds secrets written out in a document (an overlay, a site file, chart values): every one, with its path.

Such a document ends up in Git, in the objects of the cluster and in `kubectl describe`. Secrets are only named there:
`secretKeyRef`, `secretName`, `imagePullSecrets`. Every text is examined by its form, and a few places by their
structure: pairs of name and value (environment, headers), arguments, free mappings (annotations, labels) and Secrets.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import yaml

from launcher.spec.secret_text import assigned_in, found_in, is_literal, names_secret

#: Mappings whose keys are free text, where a key can name a secret; other keys are fields of a schema.
_FREE_MAPPINGS = frozenset(
    {"annotations", "labels", "nodeSelector", "matchLabels", "volumeAttributes", "options"}
)
_ARGUMENTS = frozenset({"args", "command"})
_REFERENCE = "use valueFrom.secretKeyRef, or mount the Secret"
#: Texts inside texts are read to this depth: an annotation that holds a manifest as JSON.
_DEPTH = 3


def problems(document: Any) -> list[str]:
    """One line for each literal secret: its path, what it is, what to do. The values are never repeated."""
    return list(dict.fromkeys(_of_node("", "", document, 0)))


def _of_node(path: str, field: str, node: Any, depth: int) -> Iterator[str]:
    if isinstance(node, dict):
        yield from _of_mapping(path, field, node, depth)
    elif isinstance(node, list | tuple):
        if field in _ARGUMENTS or all(isinstance(item, str) for item in node):
            yield from _of_arguments(path, node)
        for place, item in enumerate(node):
            yield from _of_node(f"{path}[{place}]", field, item, depth)
    elif isinstance(node, str):
        yield from _of_text(path, node, depth)


def _of_mapping(path: str, field: str, node: dict[Any, Any], depth: int) -> Iterator[str]:
    if node.get("kind") == "Secret" or "stringData" in node:
        yield f"{path or 'document'}: a Secret with its content; create it in the cluster, and name it here"
        return
    name, value = node.get("name"), node.get("value")
    if isinstance(name, str) and names_secret(name) and _is_literal(value):
        yield f"{path}: looks like a secret as a plain value; {_REFERENCE}"
    for key, inner in node.items():
        own = _join(path, key)
        if isinstance(key, str) and (what := found_in(key)):
            # The key itself is left out of the path: it holds the secret.
            yield f"{path or 'document'}: a key contains {what}; {_REFERENCE}"
            continue
        if field in _FREE_MAPPINGS and _key_names_secret(key) and _is_literal(inner):
            yield f"{own}: looks like a secret as a plain value; {_REFERENCE}"
        yield from _of_node(own, str(key), inner, depth)


def _of_arguments(path: str, items: list[Any] | tuple[Any, ...]) -> Iterator[str]:
    """Options with their value in the next argument: `--token`, `abc`."""
    texts = [item if isinstance(item, str) else "" for item in items]
    for place, (option, value) in enumerate(pairwise(texts)):
        if not option.startswith("-") or "=" in option or value.startswith("-"):
            continue
        if (names_secret(option) and is_literal(value)) or found_in(f"{option} {value}"):
            yield f"{path}[{place + 1}]: the value of {option.split()[0][:40]} looks like a secret; {_REFERENCE}"


def _of_text(path: str, text: str, depth: int) -> Iterator[str]:
    if what := found_in(text):
        yield f"{path}: contains {what}; {_REFERENCE}"
    elif assigned_in(text):
        yield f"{path}: sets a secret to a plain value; {_REFERENCE}"
    elif depth < _DEPTH and (inner := _document_in(text)) is not None:
        yield from _of_node(path, "", inner, depth + 1)


def _document_in(text: str) -> Any:
    """The mapping or list that a text holds as JSON or YAML, if it holds one."""
    if (
        not ("\n" in text or text.lstrip()[:1] in ("{", "["))
        or len(text) > 1 << 16
        or "*" in text
        or "&" in text
        or text.count("{") + text.count("[") > 1000
    ):
        return None
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def _is_literal(value: Any) -> bool:
    """Numbers count as well: YAML reads an unquoted `12345678` as one."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    return is_literal(str(value))


def _key_names_secret(key: Any) -> bool:
    """`checksum/secret` is a digest, by convention."""
    return isinstance(key, str) and not key.startswith("checksum/") and names_secret(key.rpartition("/")[2])


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


__all__ = ["problems"]
