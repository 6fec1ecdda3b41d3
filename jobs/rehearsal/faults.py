"""Fault injection: failures of a real service, for tests of a client.

Rules come from the server's configuration or, if the server allows it, from a request's header
`x-rehearsal-fault` (`rate-limit; retry_after_s=2`). The database counts the matches of each rule, so a restart
does not repeat a fault.

Kinds: `rate-limit`, `server-error`, `hang` and `reset` precede the request's execution, `lost-answer` follows
it; `expired-key` refuses the key; `drop-rows` makes jobs drop rows silently.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from jobs.rehearsal.state import State
from launcher.outcome import Failure, Reason
from launcher.spec.strict import Strict, describe

HEADER = "x-rehearsal-fault"
Kind = Literal["rate-limit", "server-error", "hang", "reset", "lost-answer", "expired-key", "drop-rows"]


class Rule(Strict):
    """A fault for requests that match `method`, `path` and `tenant`: the first `skip` pass, the next `times` fail."""

    kind: Kind
    method: str = "POST|GET|DELETE"
    path: str = ".*"
    tenant: str = ".*"
    skip: Annotated[int, Field(ge=0)] = 0
    times: Annotated[int, Field(ge=1)] = 1
    retry_after_s: Annotated[float, Field(ge=0)] | None = None
    status: Annotated[int, Field(ge=500, le=599)] = 503
    seconds: Annotated[float, Field(ge=0, le=600)] = 30.0
    rows: Annotated[int, Field(ge=1)] = 1


_RULES = TypeAdapter(list[Rule])


@dataclass(frozen=True)
class Faults:
    """The rules of a server; `by_header`: requests may name a fault in their header."""

    rules: tuple[Rule, ...] = ()
    by_header: bool = False

    def find(self, state: State, tenant: str, method: str, path: str, header: str | None) -> Rule | None:
        """The fault for this request, if any; counts the match."""
        if header and self.by_header and (own := _from_header(header)):
            return own
        for index, rule in enumerate(self.rules):
            if rule.kind == "drop-rows" or not re.fullmatch(rule.method, method):
                continue
            if not re.fullmatch(rule.path, path) or not re.fullmatch(rule.tenant, tenant):
                continue
            seen = state.count(f"fault-{index}")
            if rule.skip < seen <= rule.skip + rule.times:
                return rule
        return None

    def dropped_rows(self, tenant: str) -> int:
        """Number of rows that a job of this tenant drops silently."""
        rules = [rule for rule in self.rules if rule.kind == "drop-rows"]
        return sum(rule.rows for rule in rules if re.fullmatch(rule.tenant, tenant))


def read(path: Path) -> tuple[Rule, ...]:
    """Rules from a JSON list. Raises Failure(USAGE) with every problem."""
    try:
        return tuple(_RULES.validate_json(path.read_bytes()))
    except OSError as error:
        raise Failure(Reason.USAGE, f"cannot read: {error.strerror}", where=f"--faults {path}") from None
    except ValidationError as error:
        raise Failure(
            Reason.USAGE, "not a list of faults", where=f"--faults {path}", problems=tuple(describe(error))
        ) from None


def _from_header(text: str) -> Rule | None:
    """A rule from `kind; name=value; …`; None if the text is malformed."""
    kind, *settings = (part.strip() for part in text[:200].split(";"))
    values: dict[str, object] = {"kind": kind}
    try:
        for setting in settings:
            name, _, value = setting.partition("=")
            values[name] = json.loads(value)
        return Rule.model_validate(values)
    except ValueError:
        return None
