"""charts/run/README.md, made of the values' models and of the comment at the head of each template."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from launcher.manifests.chart_values import chart_directory, schema

_HEAD = """# The chart `run`

One run of a plan as Kubernetes objects: what `launcher render` prints and `launcher submit` applies.
The launcher fills in the values; `launcher render EXPERIMENT --site site.yaml --values` prints them, and

```
launcher render sql --site site.yaml --values > values.yaml
helm template RUN charts/run --namespace NAMESPACE --values values.yaml
```

gives the same objects again. There are no hooks, no `lookup`, no random names, no clock: the same values give
the same bytes. `ci/` holds the values of one scenario per file, `tests/render/goldens/` what comes out.

This page, `values.schema.json` and `ci/` are written by `python -m tests.render.write_goldens`.

## Templates

"""


def readme() -> str:
    return _HEAD + _templates() + "\n## Values\n\nUnknown keys are refused at every level.\n\n" + _values()


def _templates() -> str:
    directory = chart_directory() / "templates"
    lines = ["| file | what it is |", "| --- | --- |"]
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            lines.append(f"| `{path.relative_to(directory)}` | {_comment(path)} |")
    return "\n".join(lines) + "\n"


def _comment(path: Path) -> str:
    found = re.search(r"\{\{-? ?/\*(.*?)\*/", path.read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"{path} says nothing about itself"
    return " ".join(found[1].split())


def _values() -> str:
    whole = schema()
    lines = ["| value | type | default | what it is |", "| --- | --- | --- | --- |"]
    lines += _rows(whole, whole["definitions"], "")
    return "\n".join(lines) + "\n"


def _rows(node: dict[str, Any], definitions: dict[str, Any], prefix: str) -> list[str]:
    lines = []
    for name, given in node["properties"].items():
        value = _resolved(given, definitions)
        path = f"{prefix}{name}"
        needed = name in node.get("required", [])
        default = "needed" if needed else _default(value)
        lines.append(
            f"| `{path}` | {_type(value, definitions)} | {default} | {value.get('description', '')} |"
        )
        inner = _resolved(value["items"], definitions) if value.get("type") == "array" else value
        if "properties" in inner:
            lines += _rows(inner, definitions, f"{path}[]." if inner is not value else f"{path}.")
    return lines


def _default(value: dict[str, Any]) -> str:
    default = value.get("default")
    return "" if default is None or isinstance(default, dict) else f"`{str(default).lower()}`"


def _resolved(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The definition behind a reference, under the description that stands beside it."""
    for part in [node, *node.get("allOf", [])]:
        if "$ref" in part:
            found = definitions[part["$ref"].rpartition("/")[2]]
            return {**found, **{key: value for key, value in node.items() if key not in ("$ref", "allOf")}}
    return node


def _type(value: dict[str, Any], definitions: dict[str, Any]) -> str:
    if value.get("type") == "array":
        return f"list of {_type(_resolved(value['items'], definitions), definitions)}"
    if "enum" in value:
        return " or ".join(f"`{choice}`" for choice in value["enum"])
    limits = [
        f"{word} {value[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in value
    ]
    return " ".join([str(value.get("type", "value")), *limits])
