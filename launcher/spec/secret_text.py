"""Recognizes secrets in a text by their form, and names that usually stand for a secret. Pure, and never quotes them.

A secret without a known form, in a place whose name says nothing, cannot be recognized.
"""

from __future__ import annotations

import base64
import binascii
import re
from itertools import pairwise

#: What a text contains -> how it is recognized: the published prefixes of issuers, and forms of headers and URLs.
_FORMS: dict[str, str] = {
    "a private key": r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY|\bAGE-SECRET-KEY-1[A-Z0-9]{20,}",
    "an API key": (
        r"\bsk-[A-Za-z0-9_-]{8,}|\b[srp]k_(?:live|test)_[A-Za-z0-9]{8,}|\bAIza[A-Za-z0-9_-]{30,}"
        r"|\bgsk_[A-Za-z0-9]{20,}|\bnvapi-[A-Za-z0-9_-]{20,}|\br8_[A-Za-z0-9]{20,}|\bSG\.[\w-]{16,}\.[\w-]{16,}"
    ),
    "an access token": (
        r"\bhf_[A-Za-z0-9]{10,}|\bgh[pousr]_[A-Za-z0-9]{16,}|\bgithub_pat_\w{16,}|\bglpat-[\w-]{16,}"
        r"|\bxox[abeoprs]-[A-Za-z0-9-]{8,}|\bnpm_[A-Za-z0-9]{20,}|\bpypi-Ag[\w-]{16,}|\bdop_v1_[0-9a-f]{16,}"
        r"|\bya29\.[\w-]{16,}|\bhv[sbr]\.[\w-]{16,}|\bdckr_pat_[\w-]{16,}|\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*"
    ),
    "an AWS access key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "a user and password in a URL": r"[a-z][a-z0-9+.-]{0,20}://[^\s/@:$]*:[^\s/@$]+@",
    "a token in a URL": r"https?://[^\s/@:$]{12,}@|https://hooks\.slack\.com/services/T\w+",
    "a key in the query of a URL": (
        r"(?i)[?&](?:[\w.-]{0,40}(?:api_?key|access_?key|secret|token|passw(?:or)?d|signature)|sig|key)"
        r"=(?![$%]?[({]|&|$)[^\s&$]{4,}"
    ),
    "an authorization header": (
        r"(?i)\bbearer\s+(?=[^\s]*\d)[A-Za-z0-9._~+/=-]{8,}|\btoken\s+(?=[^\s]*\d)[A-Za-z0-9._~+/=-]{16,}"
        r"|\bbasic\s+(?=[^\s]*[\d=])[A-Za-z0-9+/]{8,}={0,2}(?![\w.-])"
        r"|\b(?:authorization|cookie|x-api-key)\s*[:=]\s*(?!(?:bearer|basic|token)\s+[$%{])(?![$%\s{])\S+"
    ),
    "a user and password": r"(?:^|\s)(?:-u|--user|--proxy-user)[ =](?!\$)[^\s:$]+:(?!\$)\S+",
}
_PATTERNS = {what: re.compile(form) for what, form in _FORMS.items()}
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{12,}={0,2}")
#: Long runs in which a random text would be: 40 characters are an AWS secret key.
_RUN = re.compile(r"[A-Za-z0-9+/=_-]{32,}")
#: Changes between lower case, upper case and digits, per 32 characters, of a random text: 20 on average.
_RANDOM_CHANGES = 14
#: Long texts without secrets: certificates and digests.
_OPEN = re.compile(r"-----BEGIN (?:CERTIFICATE|PUBLIC KEY)|\bsha(?:256|384|512)-|\bssh-(?:rsa|ed25519) ")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SECRET_ENDINGS = (
    "password",
    "passwd",
    "passphrase",
    "secret",
    "apikey",
    "accesskey",
    "token",
    "credentials",
)
_SECRET_WORDS = frozenset(
    [
        "key",
        "keys",
        "authkey",
        "privatekey",
        "secretkey",
        "pass",
        "pwd",
        "pw",
        "credential",
        "creds",
        "auth",
        "authorization",
        "bearer",
        "cookie",
        "pat",
        "dsn",
        "netrc",
        "htpasswd",
    ]
)
#: A name that ends in one of these names a place or a property of a secret, not the secret.
_ABOUT = frozenset(
    [
        "file",
        "path",
        "dir",
        "name",
        "namespace",
        "ref",
        "sock",
        "url",
        "uri",
        "type",
        "mode",
        "method",
        "id",
        "ids",
        "size",
        "ttl",
        "seconds",
        "limit",
        "length",
        "count",
        "budget",
        "rate",
        "interval",
        "class",
        "timeout",
        "version",
        "provider",
        "issuer",
        "audience",
        "enabled",
        "disabled",
    ]
)
#: Of a public half: not secret.
_PUBLIC = frozenset({"public", "pub", "topology", "sort", "cache", "partition", "primary"})
_FLAG = re.compile(r"(?i)|0|1|true|false|yes|no|on|off|none|null|auto|disabled|enabled|bearer|basic|token")
#: `$NAME`, `${NAME}`, `$(NAME)` and files: references.
_REFERENCE = re.compile(
    r"\$\{?\(?\w+\)?\}?|\$\(.*\)|\{\{.*|~?/[\w./@-]+|file:/\S+|[a-z][a-z0-9-]*(?:/[a-z0-9._-]+)+"
)
_ASSIGNMENT = re.compile(
    r"""(?<![\w./-])-{0,2}([A-Za-z_][\w.-]*)["']?[ \t]*[=:][ \t]*["']?([^\s"';&|,{}\[\]]+)"""
)


def found_in(text: str, *, encodings: int = 2) -> str:
    """What kind of secret `text` contains, by its form; empty if none is recognized.

    Base64 is decoded up to `encodings` times.
    """
    for what, pattern in _PATTERNS.items():
        if pattern.search(text):
            return what
    for decoded in filter(None, map(_decoded, _BASE64.findall(text))) if encodings else ():
        if what := found_in(decoded, encodings=encodings - 1):
            return f"{what} in base64"
        if assigned_in(decoded):
            return "a secret in base64"
    if not _OPEN.search(text) and any(_is_random(run) for run in _RUN.findall(text) if not _decoded(run)):
        return "a random text such as a key"
    return ""


def assigned_in(text: str) -> str:
    """The first name in `text` that usually stands for a secret and gets a value: `--api-key=x`, `PASSWORD: x`."""
    for name, value in _ASSIGNMENT.findall(text):
        # `key: value` says nothing: tolerations and selectors have it.
        if name.lower() not in ("key", "keys") and names_secret(name) and is_literal(value):
            return str(name)
    return ""


def names_secret(name: str) -> bool:
    """Whether a variable, option or header of this name usually holds a secret."""
    words = [word.lower() for word in _WORDS.findall(name) if not word.isdigit()]
    if not words or (words[-1] in _ABOUT and words[-3:] != ["access", "key", "id"]):
        return False
    return any(
        (word in _SECRET_WORDS or word.endswith(_SECRET_ENDINGS))
        and (place == 0 or words[place - 1] not in _PUBLIC)
        for place, word in enumerate(words)
    )


def is_literal(value: str) -> bool:
    """Whether a value could be a secret itself: not a switch, a file or a reference to a variable."""
    return not _FLAG.fullmatch(value.strip()) and not _REFERENCE.fullmatch(value.strip())


def _decoded(run: str) -> str:
    standard = run.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        decoded = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
        text = decoded.decode("ascii")
        return text if text.isprintable() or "\n" in text else ""
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _is_random(run: str) -> bool:
    """Letters of both cases and digits in no order. Hexadecimal digests and paths are not."""
    if run.count("/") > len(run) // 12 or re.fullmatch(r"[0-9a-fA-F-]+", run):
        return False
    kinds = ["a" if c.islower() else "A" if c.isupper() else "0" if c.isdigit() else "" for c in run]
    if not {"a", "A", "0"} <= set(kinds):
        return False
    digit_groups = sum(two == "0" != one for one, two in pairwise(["", *kinds]))
    changes = sum(one != two for one, two in pairwise(kinds))
    return digit_groups > 1 and changes * 32 >= _RANDOM_CHANGES * len(run)


__all__ = ["assigned_in", "found_in", "is_literal", "names_secret"]
