"""Stage kind `predict`."""

VERSION = 2
