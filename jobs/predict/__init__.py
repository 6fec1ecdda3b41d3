"""Stage kind `predict`."""

VERSION = 1
