"""Stage kind `fetch`."""

VERSION = 1
