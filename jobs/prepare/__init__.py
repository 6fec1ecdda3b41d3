"""Stage kind `prepare`."""

VERSION = 1
