"""The SQL in a model's answer.

Rules, in this order; what none of them touches is taken as it stands:

1. A fenced block (three backticks) holds the answer; of several, the first that starts like a query.
2. A label before the query ("SQL:", "Answer:", "The query is:") is dropped.
3. Prose before the query is dropped: where the text does not start with an SQL verb, it is cut at
   the first line that starts with SELECT or WITH, else at the first SELECT.
4. The answer ends at the first semicolon outside quotes and comments; what follows is never run.
5. Without a semicolon it ends at an empty line that is followed by prose.

Every step is linear in the length of the answer, whatever the answer is.
"""

from __future__ import annotations

import re

#: Longer answers are not looked at: no question needs them, and parsing them is what an attack would want.
MAX_ANSWER_CHARACTERS = 100_000

_FENCE = re.compile(r"```[ \t]*(\w*)[^\S\n]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_LABEL = re.compile(
    r"\s*(?:\*\*)?(?:here is |the )?(?:final |correct )?(?:sqlite|sql|answer|query)"
    r"(?: query| statement)?(?: is)?(?:\*\*)?\s?:(?:\*\*)?\s*",
    re.IGNORECASE,
)
_STARTS_LIKE_A_QUERY = re.compile(r"[\s(]*(?:select|with|values)\b", re.IGNORECASE)
_STARTS_LIKE_SQL = re.compile(
    r"[\s(]*(?:--|/\*|(?:select|with|values|insert|update|delete|replace|drop|create|alter|attach|detach|pragma|"
    r"explain|vacuum|reindex|analyze|begin|commit|end|rollback|savepoint|release)\b)",
    re.IGNORECASE,
)
_QUERY_LINE = re.compile(r"^[ \t]*(?:select|with)\b", re.IGNORECASE | re.MULTILINE)
_SELECT = re.compile(r"\bselect\b", re.IGNORECASE)
#: Quotes and comments match to the end where they are never closed, which keeps the scan linear.
_STOP = re.compile(
    r"""'(?:[^']|'')*(?:'|\Z)|"(?:[^"]|"")*(?:"|\Z)|`[^`]*(?:`|\Z)|\[[^\]]*(?:\]|\Z)"""
    r"""|--[^\n]*|/\*.*?(?:\*/|\Z)|(?P<end>;)|(?P<gap>\s++)(?P<word>[A-Za-z]*+)""",
    re.DOTALL,
)
#: Words that carry a query on behind an empty line.
_CONTINUES = re.compile(
    r"(?:select|from|where|group|having|order|limit|offset|union|intersect|except|join|inner|left|right|full|cross|"
    r"natural|outer|on|using|and|or|not|in|like|between|is|as|case|when|then|else|end|distinct|values|with|over|"
    r"partition|window|asc|desc)\Z",
    re.IGNORECASE,
)


def extract_sql(answer: str) -> str:
    """The query in `answer` by the rules above; an empty string where nothing is left."""
    text = _label_dropped(_fenced(answer))
    if not _STARTS_LIKE_SQL.match(text):
        start = _QUERY_LINE.search(text) or _SELECT.search(text)
        if start:
            text = text[start.start() :]
    return _first_statement(text).strip()


def _fenced(answer: str) -> str:
    if "```" not in answer:
        return answer
    blocks = [
        match[2] if match[1].lower() in ("", "sql", "sqlite") else match[1] + match[2]
        for match in _FENCE.finditer(answer)
    ]
    for block in blocks:
        if _STARTS_LIKE_A_QUERY.match(block):
            return block
    return blocks[0]


def _label_dropped(text: str) -> str:
    match = _LABEL.match(text)
    return text[match.end() :] if match else text


def _first_statement(text: str) -> str:
    for match in _STOP.finditer(text):
        if match["end"]:
            return text[: match.start()]
        if match["word"] and match["gap"].count("\n") > 1 and not _CONTINUES.match(match["word"]):
            return text[: match.start()]
    return text
