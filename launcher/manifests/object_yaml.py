"""Objects as YAML that every YAML reader parses to the same values."""

from __future__ import annotations

from typing import Any

import yaml


def object_yaml(item: dict[str, Any]) -> bytes:
    """One object as YAML, keys sorted, without aliases."""
    text: str = yaml.dump(item, Dumper=_Dumper, sort_keys=True, width=1 << 30, allow_unicode=True)
    return text.encode()


_BaseDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_BaseDumper):  # type: ignore[misc]
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: Any, text: str) -> Any:
    # PyYAML leaves 2e-05 and 12e45 unquoted, which Go's reader parses as numbers.
    style = "|" if "\n" in text else "'" if text[:1] in "0123456789+-." else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
