"""Stage kind `tune`."""

VERSION = 1
