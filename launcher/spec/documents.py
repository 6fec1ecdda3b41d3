"""Plain documents: strict YAML, deep merge, and assignment by path; `experiment` and `site` validate them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from launcher.outcome import Failure, Reason


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Deep merge: mappings are merged, everything else, including lists, is replaced. `base` is not changed."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


_STEP = re.compile(r"\.?([A-Za-z_][\w-]*)|\[([^\]]+)\]")


def assign(document: dict[str, Any], assignment: str) -> None:
    """Apply `path=value` in place; the value is YAML.

    A list element is named by its index or by its `name`: `contenders[1].lora.r=16`,
    `contenders[tuned].lora.r=16`. Raises ValueError if the path does not exist.
    """
    path, equals, text = assignment.partition("=")
    if not equals:
        raise ValueError("write path=value, for example data.train_rows=400")
    steps = [match[1] or match[2] for match in _STEP.finditer(path)]
    if not steps or "".join(match[0] for match in _STEP.finditer(path)) != path:
        raise ValueError(f"'{path}' is not a path such as contenders[1].lora.r")
    try:
        value = _load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f"the value is not YAML{_yaml_problem(error)}") from None
    node: Any = document
    for depth, step in enumerate(steps):
        last = depth == len(steps) - 1
        if isinstance(node, list):
            key: Any = _element(node, step)
        elif isinstance(node, dict):
            key = step
            if not last and not isinstance(node.get(key), dict | list):
                node[key] = {}
        else:
            raise ValueError(f"'{step}' leads into a plain value")
        if last:
            node[key] = value
        elif not isinstance(node[key], dict | list):
            raise ValueError(f"'{step}' is a plain value and has nothing below it")
        else:
            # Copy before the change: profiles and defaults are shared between loads.
            node[key] = node[key].copy()
            node = node[key]


def _element(items: list[Any], step: str) -> int:
    if re.fullmatch(r"\d+", step):
        if int(step) < len(items):
            return int(step)
        raise ValueError(f"there is no element {step}; the list has {len(items)}")
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if step in names:
        return names.index(step)
    raise ValueError(f"no element is named '{step}'; there are {', '.join(str(name) for name in names)}")


_MAX_DEPTH = 100
#: Values of one document, each alias counted as often as it is used.
_MAX_VALUES = 100_000
#: libyaml's loader if PyYAML has it: several times as fast.
_BaseLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Loader(_BaseLoader):  # type: ignore[misc]
    """PyYAML's loader, except that `3e-4` is a number and a repeated key is an error."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Check for repeated keys first: keys from a merge key (`<<`) are no repetition."""
        looked_at: dict[int, yaml.MappingNode] = self.__dict__.setdefault("_looked_at", {})
        if id(node) not in looked_at:
            looked_at[id(node)] = node
            _refuse_repeated_keys(node)
        super().flatten_mapping(node)


def _load(text: str) -> Any:
    """Raises YAMLError, ValueError, or RecursionError if it is nested too deeply."""
    _check_size(text)
    return yaml.load(text, Loader=Loader)


def _check_size(text: str) -> None:
    """Refuse what is nested too deeply, or what aliases expand to too many values.

    The events are read first, which takes no recursion and expands no alias: libyaml's loader would end the process,
    and everything that walks or copies a document visits an alias's values again each time that it is used.
    """
    #: Values of each open collection, with its anchor.
    open_collections: list[tuple[str | None, int]] = [(None, 0)]
    values_of: dict[str | None, int] = {}
    for event in yaml.parse(text, Loader=_BaseLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            open_collections.append((event.anchor, 1))
            if len(open_collections) > _MAX_DEPTH:
                raise RecursionError
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, values = open_collections.pop()
        elif isinstance(event, yaml.ScalarEvent):
            anchor, values = event.anchor, 1
        elif isinstance(event, yaml.AliasEvent):
            anchor, values = None, values_of.get(event.anchor, 0)
        else:
            continue
        if anchor is not None:
            values_of[anchor] = values
        outer, counted = open_collections.pop()
        if counted + values > _MAX_VALUES:
            raise ValueError(f"it has more than {_MAX_VALUES:,} values once its aliases are expanded")
        open_collections.append((outer, counted + values))


def _refuse_repeated_keys(node: yaml.MappingNode) -> None:
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        if (key.tag, key.value) in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key '{key.value}' is given twice", key.start_mark
            )
        seen.add((key.tag, key.value))


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises Failure(MISSING_INPUT | BAD_EXPERIMENT)."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise Failure(Reason.MISSING_INPUT, f"cannot read: {why}", where=str(path)) from None
    document = read_yaml(text, str(path))
    if not isinstance(document, dict):
        raise Failure(Reason.BAD_EXPERIMENT, "must be a mapping of keys to values", where=str(path))
    return document


def read_yaml(text: str, where: str) -> Any:
    """Plain data from YAML. Raises Failure(BAD_EXPERIMENT) with line and column of the error."""
    try:
        return _load(text)
    # ValueError: a date or number of the right form that cannot be one, such as 2023-13-45.
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise Failure(Reason.BAD_EXPERIMENT, f"not YAML{_yaml_problem(error)}", where=where) from None


def _yaml_problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    if isinstance(error, RecursionError):
        return ": nested too deeply"
    problem = getattr(error, "problem", None) or (str(error) if type(error) is ValueError else "malformed")
    return f"{place}: {problem}"
