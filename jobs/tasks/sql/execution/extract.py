"""Extract the SQL query from a model's answer.

Rules, in this order; other text is kept unchanged:

1. A fenced block (three backticks or tildes) holds the query, without its info string; of several blocks, the
   first that starts like a query. If a fence is closed but not opened, because the prompt opened it, the block
   is the text before it.
2. A label before the query ("SQL:", "Answer:", "The query is:") is dropped.
3. Prose before the query is dropped: text that does not start with an SQL verb, or starts with a sentence
   ("Select the names:"), is cut at the first line that starts with SELECT or WITH name AS (, else at the first
   of these anywhere. A backtick before the query starts inline code, which ends at the next one.
4. The query ends at the first semicolon outside quotes and comments; what follows is never run.
5. Outside a closed fence it also ends at an empty line followed by prose, if a query can end there: outside
   parentheses, and not after a comma, an operator or a word such as ON.

Each step takes time linear in the length of the answer.
"""

from __future__ import annotations

import re

#: Longer answers are wrong without parsing.
MAX_ANSWER_CHARACTERS = 100_000

_VERBS = (
    r"(?:select|with|values|insert|update|delete|replace|drop|create|alter|attach|detach|pragma|"
    r"explain|vacuum|reindex|analyze|begin|commit|end|rollback|savepoint|release)\b"
)
#: Bounded repetition keeps the search linear.
_CTE = (
    r"with\b\s+(?:recursive\s+)?(?:\w{1,200}|\"[^\"]{0,200}\"|`[^`]{0,200}`|\[[^\]]{0,200}\])\s*"
    r"(?:\([^()]{0,500}\)\s*)?as\s*(?:(?:not\s+)?materialized\s*)?\("
)
_FENCE = re.compile(r"`{3,}|^[ \t]*~{3,}", re.MULTILINE)
#: Info string of a fence: the rest of its line if it holds no SQL, else a word before the SQL.
_INFO = re.compile(
    rf"[ \t]*(?=[\w{{.\n])(?:(?!\b{_VERBS})[^\n])*\n|[ \t]*(?!{_VERBS})[\w.+#-]+[ \t]*(?=\(|\b{_VERBS}|--|/\*)",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"\s*(?:\*\*)?(?:here is |the )?(?:final |correct )?(?:sqlite|sql|answer|query)"
    r"(?: query| statement)?(?: is)?(?:\*\*)?\s?:(?:\*\*)?\s*",
    re.IGNORECASE,
)
_STARTS_LIKE_A_QUERY = re.compile(
    r"(?:[\s(]|--[^\n]*|/\*.*?\*/)*+(?:select|with|values)\b", re.IGNORECASE | re.DOTALL
)
_STARTS_LIKE_SQL = re.compile(rf"[\s(]*(?:--|/\*|{_VERBS})", re.IGNORECASE)
_QUERY_LINE = re.compile(rf"^[ \t]*(?P<start>\(*(?:select\b|{_CTE}))", re.IGNORECASE | re.MULTILINE)
_QUERY = re.compile(rf"(?P<start>\bselect\b|\b{_CTE})", re.IGNORECASE)
#: A sentence: text up to a colon before white space, or up to a full stop at the end of a line. SQL has neither
#: outside quotes and comments, except for a number such as `5.`.
_SENTENCE = re.compile(
    r"""\s*+(?:(?!--|/\*)(?:[^\n'"`:]|(?<=\w)'))*(?::(?=\s)|(?<![\d\n])[.!](?=[ \t]*\n))"""
)
#: An unclosed quote or comment matches to the end of the text, which keeps the scan linear.
_TOKEN = re.compile(
    r"""(?P<quoted>'(?:[^']|'')*+(?:'|\Z)|"(?:[^"]|"")*+(?:"|\Z)|`[^`]*+(?:`|\Z)|\[[^\]]*+(?:\]|\Z))"""
    r"""|(?P<comment>--[^\n]*+|/\*.*?(?:\*/|\Z))|(?P<gap>\s++)|(?P<word>\w++)|(?P<sign>.)""",
    re.DOTALL,
)
#: Text after an empty line that cannot continue a query.
_PROSE = re.compile(
    r"#|\*\*|\d+[.)]\s|"
    r"(?!(?:select|from|where|group|having|order|limit|offset|union|intersect|except|join|inner|left|right|full|cross|"
    r"natural|outer|on|using|and|or|not|in|like|between|is|as|case|when|then|else|end|distinct|values|with|over|"
    r"partition|window|asc|desc)(?![a-z]))[^\W\d_]",
    re.IGNORECASE,
)
#: Words that no query ends with.
_UNFINISHED = re.compile(
    r"(?:all|and|as|between|by|case|collate|cross|distinct|else|escape|except|from|full|glob|group|having|in|inner|"
    r"intersect|is|join|left|like|limit|natural|not|offset|on|or|order|outer|over|partition|recursive|right|select|"
    r"then|union|using|values|when|where|window|with)\Z",
    re.IGNORECASE,
)


def extract_sql(answer: str) -> str:
    """The query in `answer` by the rules above; "" if there is none."""
    text, closed = _fenced(answer)
    text = _label_dropped(text)
    start = _query_start(text)
    inline = text[max(0, start - 1) : start] == "`"
    return text[start : _statement_end(text, start, closed=closed, inline=inline)].strip()


def _fenced(answer: str) -> tuple[str, bool]:
    """The text that holds the query, and whether a closing fence ends it."""
    pieces = _FENCE.split(answer)
    if len(pieces) == 1:
        return answer, False
    before, first_line = pieces[0], pieces[1].partition("\n")[0]
    if len(pieces) % 2 == 0 and not first_line.strip() and _starts_with_query(before):
        return before, True
    blocks = [(_without_info(block), 2 * n + 2 < len(pieces)) for n, block in enumerate(pieces[1::2])]
    outside = [(piece, False) for piece in pieces[::2]]
    queries = (block for block in blocks if _STARTS_LIKE_A_QUERY.match(block[0]))
    others = (piece for piece in (blocks[0], *outside) if _holds_sql(piece[0]))
    return next(queries, None) or next(others, blocks[0])


def _holds_sql(text: str) -> bool:
    return _STARTS_LIKE_SQL.match(text) is not None or _QUERY.search(text) is not None


def _without_info(block: str) -> str:
    match = _INFO.match(block)
    return block[match.end() :] if match else block


def _starts_with_query(text: str) -> bool:
    text = _label_dropped(text)
    return _STARTS_LIKE_A_QUERY.match(text) is not None and _SENTENCE.match(text) is None


def _label_dropped(text: str) -> str:
    match = _LABEL.match(text)
    return text[match.end() :] if match else text


def _query_start(text: str) -> int:
    """The position at which the query starts; 0 if none is found."""
    if _STARTS_LIKE_SQL.match(text) and not _SENTENCE.match(text):
        return 0
    for pattern in (_QUERY_LINE, _QUERY):
        at = 0
        while match := pattern.search(text, at):
            sentence = _SENTENCE.match(text, match.start("start"))
            if not sentence:
                return match.start("start")
            at = sentence.end()
    return 0


def _statement_end(text: str, start: int, *, closed: bool, inline: bool) -> int:
    """The position at which the statement from `start` ends: by rules 4 and 5, or at the end of inline code."""
    depth, last, last_kind = 0, "", ""
    for match in _TOKEN.finditer(text, start):
        kind, token = match.lastgroup or "", match[0]
        if token == ";" or (inline and token[0] == "`" and text[match.start() - 1] not in " \t\n,(.=<>"):
            return match.start()
        if kind == "gap" and not closed and depth <= 0 and _can_end(last_kind, last):
            if "\n" in token and text.startswith("#", match.end()):
                return match.start()
            if token.count("\n") > 1 and _PROSE.match(text, match.end()):
                return match.start()
        if kind not in ("gap", "comment"):
            depth += (token == "(") - (token == ")")
            last_kind, last = kind, token
    return len(text)


def _can_end(kind: str, token: str) -> bool:
    """Whether a query can end with a token."""
    if kind == "word":
        return not _UNFINISHED.match(token)
    return kind == "quoted" or token in (")", ".")
